"""A function called in a worker process, for what a plugin's network may do to the process that runs it."""

from __future__ import annotations

import select
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from automl_pt.core import errors
from automl_pt.core.errors import AutomlError, PluginError
from automl_pt.core.json_reader import parse_json

if TYPE_CHECKING:
    from automl_pt.study.executor.processes import Worker

#: seconds that a process may take to start, whatever the limit: none of a plugin's code runs until then
STARTING = 120.0
#: seconds between two looks at whether the call is still wanted
LOOK = 0.2


class WorkerEnded(Exception):  # noqa: N818  # the engine turns it into an error that names the plugin
    """The worker's process ended before it answered."""


def answer(worker: Worker, limit: float | None, unwanted: Callable[[], bool]) -> dict[str, Any] | None:
    """Wait for the worker's answer to a call; return None where it is no longer wanted.

    Raises WorkerEnded where the process has ended, and TimeoutError after `limit` seconds.
    """
    # the time of a process that starts is not the plugin's
    began, ready = time.monotonic(), select.poll()
    ready.register(worker.connection, select.POLLIN)
    while True:
        if ready.poll(1000 * LOOK):
            data = _received(worker)
            if not data:
                raise WorkerEnded
            *lines, worker.buffer = (worker.buffer + data).split(b"\n")
            for message in (parse_json(line, not_finite=True) for line in lines):
                if message.get("ready"):
                    worker.ready, began = True, time.monotonic()
                if "called" in message:
                    return dict(message)
        elif worker.process.poll() is not None:
            raise WorkerEnded
        if limit and time.monotonic() - began > (limit if worker.ready else max(limit, STARTING)):
            raise TimeoutError
        if unwanted():
            return None


def _received(worker: Worker) -> bytes:
    try:
        return worker.connection.recv(1 << 16)
    except ConnectionError:
        return b""


def how_it_ended(code: int) -> str:
    """Say how a process ended, from its exit code as `subprocess` gives it."""
    if code >= 0:
        return f"its process ended with exit code {code}"
    name = signal.Signals(-code).name
    hint = ", often for lack of memory" if name == "SIGKILL" else ""
    return f"its process was ended by {name}{hint}"


def plugin_ended(what: str, how: str, log: object) -> PluginError:
    """Return the error for a plugin's code that did not come back; `what` says whose code it is."""
    return PluginError(
        f"{what} did not come back",
        given=how,
        remedy=f"correct the plugin, or leave it out; what the process printed is in {log}",
    )


def as_plain(error: AutomlError) -> dict[str, Any]:
    """Put an error of ours in plain values."""
    plain = {"type": type(error).__name__, "rule": error.rule, "given": error.given, "remedy": error.remedy}
    return {**plain, "mistakes": list(error.mistakes)} if isinstance(error, errors.ConfigError) else plain


def from_plain(parts: dict[str, Any]) -> AutomlError:
    """Make an error of a worker again, by its name in `errors`."""
    kind = getattr(errors, parts["type"], AutomlError)
    error: AutomlError = kind.__new__(kind)
    AutomlError.__init__(error, parts["rule"], given=parts["given"], remedy=parts["remedy"])
    if isinstance(error, errors.ConfigError):
        error.mistakes = tuple(parts.get("mistakes", ()))
    return error
