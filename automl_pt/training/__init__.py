"""One run: the loop, its steps and schedule, when it stops, what it saves."""
