"""For Python callers: `train` and `search` with every setting as a keyword, shown live in a notebook."""
