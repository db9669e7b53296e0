"""What makes training faster on a CUDA device."""
