"""Measures how much memory is free."""

from __future__ import annotations

import os
from pathlib import Path


def available_memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes of memory that are usable without swapping, within a container's limit; 0 if unknown."""
    free = _meminfo(meminfo)
    bound = _number(cgroup / "memory.max"), _number(cgroup / "memory.current")
    if bound[0] is not None and bound[1] is not None:
        free = min(free, max(0, bound[0] - bound[1]))
    return free


def _meminfo(path: Path) -> int:
    try:
        for line in path.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux; tried below
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):  # the system does not report it
        return 0


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return None
