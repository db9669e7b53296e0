"""What a process holds, counted in it: called in worker processes, and by tests in their own."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import torch


def alive(device: str = "cpu", threads: int = 1, caller: Any = None) -> dict[str, float]:
    """Return the parameters that are alive in this process, and its resident memory in MB (0 without /proc)."""
    gc.collect()
    found = sum(type(thing) is torch.nn.Parameter for thing in gc.get_objects())
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return {"parameters": found, "mb": sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))}
