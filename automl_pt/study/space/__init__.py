"""The search space, and the choice of the next trial's point."""
