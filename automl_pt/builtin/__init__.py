"""The built-in backbones and datasets, registered through the same hooks as plugins."""
