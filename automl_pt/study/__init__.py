"""A search: which trials run, in which order, on which workers, and what is kept of them."""
