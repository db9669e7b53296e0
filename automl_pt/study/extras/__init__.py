"""The optional results that a study makes of its ended trials beside the best model."""
