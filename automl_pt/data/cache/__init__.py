"""Decoded images on disk, shared by trials, epochs, workers and studies."""
