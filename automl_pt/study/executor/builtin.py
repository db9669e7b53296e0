"""Registers the executors that come with the package; the module of each is imported when it is chosen."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from automl_pt.plugins.executors import ExecutorFactory
from automl_pt.plugins.hookspecs import hookimpl

_HERE = "automl_pt.study.executor"
#: what runs trials where no other is chosen; and where they run in this process
DEFAULT, IN_PROCESS = "processes", "inline"


@hookimpl
def register_executors() -> Iterable[ExecutorFactory]:
    """Register `processes`, `inline` and `ray`."""
    return [
        ExecutorFactory(DEFAULT, f"{_HERE}.processes:make_executor", "worker processes, one per GPU or CPU core"),
        ExecutorFactory("ray", _make_ray, "the machines of a Ray cluster"),
        ExecutorFactory(IN_PROCESS, f"{_HERE}.inline:make_executor", "this process, one trial at a time"),
    ]


def ray_address(asked: str | None) -> str:
    """Return the address of the cluster: the one asked for, else `RAY_ADDRESS`, else that of the one that runs here."""
    current = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray" / "ray_current_cluster"
    running = current.read_text(encoding="utf-8").strip() if current.is_file() else "auto"
    return asked or os.environ.get("RAY_ADDRESS") or running


def _make_ray(job: Any) -> Any:
    """Return the executor of the cluster that the settings name; imports Ray.

    Ray reads the variable at its import: without it, it takes an address on the loopback for one on the network.
    """
    if ray_address(job.config.ray_address).removeprefix("ray://").startswith(("127.", "localhost")):
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    from automl_pt.study.executor.ray_cluster import RayEngine

    return RayEngine(job)
