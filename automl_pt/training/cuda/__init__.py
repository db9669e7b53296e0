"""Faster training on a CUDA device."""
