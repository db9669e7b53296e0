"""A search: which trials, in which order, on which workers, and what is kept of them."""
