"""One run: set up, executed in a run directory, repeated."""
