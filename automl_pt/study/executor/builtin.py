"""Registers the executors that come with the package; the module of each is imported when it is chosen."""

from __future__ import annotations

from collections.abc import Iterable

from automl_pt.plugins.executors import ExecutorFactory
from automl_pt.plugins.hookspecs import hookimpl

_HERE = "automl_pt.study.executor"
#: what runs trials where no other is chosen; and where they run in this process
DEFAULT, IN_PROCESS = "processes", "inline"


@hookimpl
def register_executors() -> Iterable[ExecutorFactory]:
    """Register `processes` and `inline`."""
    return [
        ExecutorFactory(DEFAULT, f"{_HERE}.processes:make_executor", "worker processes, one per GPU or CPU core"),
        ExecutorFactory(IN_PROCESS, f"{_HERE}.inline:make_executor", "this process, one trial at a time"),
    ]
