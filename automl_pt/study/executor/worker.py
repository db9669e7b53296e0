"""A worker process: runs trials one after another and sends their results as JSON lines over a socket.

The executor starts it as a fresh interpreter, so that it inherits no state of the coordinator or its script. It ends
when the socket closes, and its `keeper` kills everything it started, so that no orphaned process holds a GPU.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from automl_pt.config import TrainConfig
from automl_pt.core.errors import AutomlError
from automl_pt.core.json_reader import parse_json
from automl_pt.plugins.faults import described
from automl_pt.study.executor.base import Caller, MakeTrial, PassProgress, ProxyRun, Report, TrialSpec
from automl_pt.study.executor.calls import as_plain, returned
from automl_pt.study.executor.failures import report_failure

#: seconds between two messages that only say that a called function is working
BEAT = 1.0


class CoordinatorLink:
    """The worker's end of the socket: a thread reads commands, and messages are sent whole."""

    def __init__(self, connection: socket.socket) -> None:
        # two streams, because a single read-write stream would drop its read buffer at each write
        self._incoming = connection.makefile("r", encoding="utf-8", newline="\n")
        self._outgoing = connection.makefile("w", encoding="utf-8", newline="\n")
        self._commands: queue.Queue[dict[str, Any]] = queue.Queue()
        self._stop = threading.Event()
        self._whole, self._sent = threading.Lock(), time.monotonic()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._incoming:
            command = parse_json(line, not_finite=True)
            if command["do"] == "stop":
                self._stop.set()
            self._commands.put(command)
        os._exit(0)  # the coordinator is gone; the last checkpoint is valid

    def stopping(self) -> bool:
        """Return whether the coordinator asked the current trial or call to save and stop."""
        return self._stop.is_set()

    def next_command(self) -> dict[str, Any]:
        """Wait for the next command."""
        command = self._commands.get()
        if command["do"] == "stop":  # the trial or call that it was for has ended
            self._stop.clear()
        return command

    def send(self, **message: Any) -> None:
        """Send one message."""
        with self._whole:
            self._outgoing.write(json.dumps(message) + "\n")
            self._outgoing.flush()
            self._sent = time.monotonic()

    def alive(self) -> None:
        """Report that a called function is working, unless a message was just sent."""
        if time.monotonic() - self._sent >= BEAT:
            self.send(alive=True)


def serve(link: CoordinatorLink, make: MakeTrial) -> None:
    """Run the requested trials and calls, until the coordinator ends this process."""
    link.send(ready=True)
    while True:
        command = link.next_command()
        if command["do"] == "start":
            spec = TrialSpec(
                number=command["number"],
                config=TrainConfig(**command["config"]),
                output=Path(command["output"]),
                next_rung=command["next_rung"],
                manifest=Path(command["manifest"]),
                ranked_at=tuple(command["ranked_at"]),
                worth_saving=command["worth_saving"],
            )
            try:
                run_trial(link, make, spec)
            except (Exception, SystemExit) as error:
                link.send(**failure_message(report_failure(spec.number, error)))
        elif command["do"] == "call":
            link.send(**answer(link, command))


def answer(link: CoordinatorLink, command: dict[str, Any]) -> dict[str, Any]:
    """Call the function that a command names, with this worker's device and threads, and return the answer."""

    def should_stop() -> bool:
        link.alive()
        return link.stopping()

    caller = Caller(lambda text: link.send(told=text), link.alive, should_stop)
    try:
        found = load(command["function"])(**command["arguments"], **command["place"], caller=caller)
        if isinstance(found, Generator):
            found = returned(found, caller.tell)
        return {"called": found}
    except AutomlError as error:
        return {"called": None, "error": as_plain(error)}
    except (Exception, SystemExit) as error:
        traceback.print_exc()  # into the worker's log
        return {"called": None, "failed": described(error)}


def run_trial(link: CoordinatorLink, make: MakeTrial, spec: TrialSpec) -> None:
    """Send each epoch of one trial; wait after epoch `next_rung`."""
    epochs, next_rung = make(spec, link.stopping), spec.next_rung
    try:
        for result in epochs:
            if isinstance(result, PassProgress):
                link.send(number=spec.number, passed=asdict(result))
                continue
            if isinstance(result, ProxyRun):
                link.send(number=spec.number, probe=asdict(result))
            else:
                link.send(number=spec.number, epoch=result.to_dict())
            if (isinstance(result, ProxyRun) or result.reason is None) and result.epoch >= next_rung:
                link.send(number=spec.number, held=result.epoch)
                answer = link.next_command()
                if answer["do"] != "resume":
                    return
                next_rung = answer["next_rung"]
        link.send(number=spec.number, **({"left": True} if link.stopping() else {"ended": True}))
    finally:
        if isinstance(epochs, Generator):
            epochs.close()


def failure_message(report: Report) -> dict[str, Any]:
    """Convert a failed trial's report to plain values."""
    if isinstance(report.fatal, AutomlError):
        return {"number": report.number, "fatal": as_plain(report.fatal)}
    return {"number": report.number, "failure": report.failure}


def load(path: str) -> Callable[..., Any]:
    """Import `package.module:function`."""
    module, _, name = path.partition(":")
    return cast("Callable[..., Any]", getattr(importlib.import_module(module), name))


def main() -> None:
    """Serve the socket; the command line gives its descriptor, the coordinator and the function."""
    descriptor, _, path = sys.argv[1:]
    link = CoordinatorLink(socket.socket(fileno=int(descriptor)))
    serve(link, load(path))
