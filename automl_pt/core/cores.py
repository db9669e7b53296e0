"""Counts the CPU cores that this process may use; needs no torch."""

from __future__ import annotations

import os
from pathlib import Path


def available_cores() -> int:
    """Return how many CPU cores this process may use: its affinity, limited by a container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quota = cgroup_quota(Path("/sys/fs/cgroup"))
    return max(1, min(cores, int(quota))) if quota else cores


def cgroup_quota(root: Path) -> float | None:
    """Return the cores granted by the cgroup mounted at `root` (version 2, else 1), or None if there is no limit."""
    try:
        if (root / "cpu.max").exists():
            quota, period = (root / "cpu.max").read_text().split()
        else:
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
    except (OSError, ValueError):
        return None  # no cgroup file system, for example outside Linux
    return None if quota in ("max", "-1") else float(quota) / float(period)
