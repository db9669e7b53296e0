"""Features of a frozen network: computed once, stored on disk, and used to train heads."""
