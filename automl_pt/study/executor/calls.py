"""Functions called in a worker process, because a plugin's network may end or hang the process that runs it."""

from __future__ import annotations

import select
import signal
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from automl_pt.core import errors
from automl_pt.core.errors import AutomlError, PluginError
from automl_pt.core.json_reader import parse_json
from automl_pt.study.executor.base import Answer

if TYPE_CHECKING:
    from automl_pt.study.executor.processes import Worker

#: seconds that a process may take to start, whatever the limit: none of a plugin's code runs until then
STARTING = 120.0
#: exit code of a worker whose GPU failed
DEVICE_LOST = 75
#: seconds between two looks at whether the call is still wanted
LOOK = 0.2

REMEDY = "if the backbone or the data set comes from a plugin, correct that, or leave it out"


class WorkerEnded(Exception):  # noqa: N818  # the engine turns it into an error that names the plugin
    """The worker's process ended before it answered."""


def returned(answer: Answer, tell: Callable[[str], object] = lambda text: None) -> Any:
    """Pass on what a called function tells, and return what it returns."""
    while True:
        try:
            tell(next(answer))
        except StopIteration as end:
            return end.value


def listen(
    worker: Worker, limit: float | None, unwanted: Callable[[], bool], grace: float
) -> Generator[str, None, dict[str, Any] | None]:
    """Yield what the function tells that the worker runs; return the message with what it returned.

    Once `unwanted` the worker is asked to stop; the message is None where none comes within `grace` seconds then.
    Raises WorkerEnded where the process has ended, and TimeoutError after `limit` seconds of silence.
    """
    heard, deadline, ready = time.monotonic(), None, select.poll()
    ready.register(worker.connection, select.POLLIN)
    while True:
        if ready.poll(1000 * LOOK):
            for message in _messages(worker):
                if "told" in message:
                    yield message["told"]
                if "called" in message:
                    return message
            heard = time.monotonic()
        elif worker.process.poll() is not None:
            raise WorkerEnded
        # the time of a process that starts is not the plugin's
        if limit and time.monotonic() - heard > (limit if worker.ready else max(limit, STARTING)):
            raise TimeoutError
        if deadline is None and unwanted():
            worker.send(do="stop")
            deadline = time.monotonic() + grace
        if deadline is not None and time.monotonic() >= deadline:
            return None


def _messages(worker: Worker) -> list[dict[str, Any]]:
    """Return what has come from a worker; its connection can be read."""
    data = _received(worker)
    if not data:
        raise WorkerEnded
    *lines, worker.buffer = (worker.buffer + data).split(b"\n")
    messages = [dict(parse_json(line, not_finite=True)) for line in lines]
    worker.ready = worker.ready or any(message.get("ready") for message in messages)
    return messages


def _received(worker: Worker) -> bytes:
    try:
        return worker.connection.recv(1 << 16)
    except ConnectionError:
        return b""


def how_it_ended(code: int) -> str:
    """Say how a process ended, from its exit code as `subprocess` gives it."""
    if code == DEVICE_LOST:
        return "its GPU failed"
    if code >= 0:
        return f"its process ended with exit code {code}"
    name = signal.Signals(-code).name
    hint = ", often for lack of memory" if name == "SIGKILL" else ""
    return f"its process was ended by {name}{hint}"


def did_not_return(what: str, how: str, printed: str) -> PluginError:
    """Return the error for a function whose process ended or hung; `what` says what it did."""
    return PluginError(f"{what} did not come back", given=f"{how}; {printed}", remedy=REMEDY)


def failed(what: str, how: str) -> PluginError:
    """Return the error for a function that raised what is no error of ours; `what` says what it did."""
    return PluginError(f"{what} failed", given=how, remedy=REMEDY)


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
