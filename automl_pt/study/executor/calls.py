"""Calls functions in a worker process, because a plugin's network may kill or hang its process."""

from __future__ import annotations

import select
import signal
import time
from collections.abc import Callable, Generator
from typing import Any

from automl_pt.core.errors import PluginError
from automl_pt.study.executor.base import Answer
from automl_pt.study.executor.messages import error_from_plain
from automl_pt.study.executor.worker_process import Worker, WorkerEnded

#: seconds that a process may take to start, regardless of the limit, because no plugin code runs before
STARTING = 120.0
#: exit code of a worker whose GPU failed
DEVICE_LOST = 75
#: seconds between two checks whether the call is still wanted
LOOK = 0.2

REMEDY = "if the backbone or the dataset comes from a plugin, correct or remove that plugin"


def returned(answer: Answer, tell: Callable[[str], object] = lambda text: None) -> Any:
    """Pass a called function's sentences to `tell`, and return its result."""
    while True:
        try:
            tell(next(answer))
        except StopIteration as end:
            return end.value


def listen(
    worker: Worker, limit: float | None, unwanted: Callable[[], bool], grace: float
) -> Generator[str, None, dict[str, Any] | None]:
    """Yield the sentences of the function that the worker runs; return the message with its result.

    Once `unwanted` the worker is asked to stop; the message is None if none arrives within `grace` seconds after that.
    Raises WorkerEnded where the process has ended, and TimeoutError after `limit` seconds of silence.
    """
    heard, deadline, ready = time.monotonic(), None, select.poll()
    ready.register(worker.connection, select.POLLIN)
    while True:
        if ready.poll(1000 * LOOK):
            for message in worker.receive():
                if "told" in message:
                    yield message["told"]
                if "called" in message:
                    return message
            heard = time.monotonic()
        elif worker.process.poll() is not None:
            raise WorkerEnded
        # a plugin's time limit does not include the start of the process
        if limit and time.monotonic() - heard > (limit if worker.ready else max(limit, STARTING)):
            raise TimeoutError
        if deadline is None and unwanted():
            worker.send(do="stop")
            deadline = time.monotonic() + grace
        if deadline is not None and time.monotonic() >= deadline:
            return None


def how_it_ended(code: int) -> str:
    """Describe how a process ended, from its exit code as `subprocess` reports it."""
    if code == DEVICE_LOST:
        return "its GPU failed"
    if code >= 0:
        return f"its process ended with exit code {code}"
    name = signal.Signals(-code).name
    hint = ", often because memory ran out" if name == "SIGKILL" else ""
    return f"its process was ended by {name}{hint}"


def did_not_return(what: str, how: str, printed: str) -> PluginError:
    """Return the error for a function whose process ended or hung; `what` describes the call."""
    return PluginError(f"{what} did not return", given=f"{how}; {printed}", remedy=REMEDY)


def failed(what: str, how: str) -> PluginError:
    """Return the error for a function that raised a foreign exception; `what` describes the call."""
    return PluginError(f"{what} failed", given=how, remedy=REMEDY)


def result_of(answer: dict[str, Any], what: str) -> Any:
    """Return a called function's result; raise its error."""
    if "error" in answer:
        raise error_from_plain(answer["error"])
    if "failed" in answer:
        raise failed(what, answer["failed"])
    return answer["called"]
