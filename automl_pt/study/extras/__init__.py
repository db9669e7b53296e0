"""What a study can make of its ended trials beside the best model."""
