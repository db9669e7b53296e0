"""One run's training: loop, steps, schedule, early stopping, checkpoints."""
