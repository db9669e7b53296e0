"""Features of a frozen network: computed once, kept on disk, and what is trained on them."""
