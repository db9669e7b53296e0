"""The search space, and which point of it the next trial has."""
