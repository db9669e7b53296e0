"""What every benchmark writes beside its figures: the machine, the versions, the commit."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("automl-pt", "torch", "torchvision", "timm", "numpy", "pillow")

#: what `surroundings` returns
MACHINE = ("date", "commit", "machine", "threads", "versions")


def write(name: str, **figures: Any) -> Path:
    """Write `results/NAME.json` with what is needed to read the figures later."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**surroundings(), **figures}, indent=1) + "\n")
    return path


def surroundings() -> dict[str, Any]:
    import torch

    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip(),
        "machine": {"cpu": cpu_model(), "cores": len(os.sched_getaffinity(0)), "system": platform.platform()},
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }


@contextmanager
def bytecode() -> Iterator[dict[str, str]]:
    """Give an environment in which Python keeps its bytecode, as it does for people, even where this one must not."""
    with tempfile.TemporaryDirectory() as folder:
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        yield {**kept, "PYTHONPYCACHEPREFIX": folder}


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def summary(values: list[float]) -> dict[str, Any]:
    """Return the median, the range and each value."""
    return {"median": median(values), "low": min(values), "high": max(values), "all": values}
