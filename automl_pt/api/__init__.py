"""A search of an image classifier: what the command line and Python callers begin with."""
