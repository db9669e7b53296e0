"""Turns a registered backbone into a network: built, its weights loaded, its parameters grouped."""
