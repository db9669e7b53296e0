"""Runs trials in this process, or in local worker processes."""
