"""Where a run runs: in this process, or in local worker processes."""
