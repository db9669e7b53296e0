"""What makes training faster on a CPU."""
