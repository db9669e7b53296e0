"""Plugins: found, loaded, checked, and looked up by name."""
