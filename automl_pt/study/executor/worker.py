"""A worker process: runs one trial after another and sends what comes out, as JSON lines over a socket.

It is started by `local` as a fresh interpreter, so that nothing of the coordinator's state comes along, whatever script
called it. It ends when the socket does, and its `keeper` ends with it whatever it started: no orphan keeps a GPU.
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

#: seconds between two messages that say nothing but that a called function is at work
BEAT = 1.0


class CoordinatorLink:
    """The worker's end of the socket: commands come in on a thread of their own, messages go out whole."""

    def __init__(self, connection: socket.socket) -> None:
        # two streams: one for both would forget what it has read, but not handed out yet, whenever something is sent
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
        os._exit(0)  # the coordinator is gone: leave at once, the last checkpoint stands

    def stopping(self) -> bool:
        """Say whether the coordinator asked to save and stop what runs now."""
        return self._stop.is_set()

    def next_command(self) -> dict[str, Any]:
        """Wait for the next command."""
        command = self._commands.get()
        if command["do"] == "stop":  # what it was meant for has ended
            self._stop.clear()
        return command

    def send(self, **message: Any) -> None:
        """Send one message."""
        with self._whole:
            self._outgoing.write(json.dumps(message) + "\n")
            self._outgoing.flush()
            self._sent = time.monotonic()

    def alive(self) -> None:
        """Say that a called function is at work, unless something was said a moment ago."""
        if time.monotonic() - self._sent >= BEAT:
            self.send(alive=True)


def serve(link: CoordinatorLink, make: MakeTrial) -> None:
    """Run the trials and call the functions that are asked for, until the coordinator ends this process."""
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
            )
            try:
                run_trial(link, make, spec)
            except (Exception, SystemExit) as error:
                link.send(**failure_message(report_failure(spec.number, error)))
        elif command["do"] == "call":
            link.send(**answer(link, command))


def answer(link: CoordinatorLink, command: dict[str, Any]) -> dict[str, Any]:
    """Call the function that a command names, with the device and the threads of this worker, and answer it."""

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
    """Send each epoch of one trial; hold where told to."""
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
    """Put a failed trial's report in plain values."""
    if isinstance(report.fatal, AutomlError):
        return {"number": report.number, "fatal": as_plain(report.fatal)}
    return {"number": report.number, "failure": report.failure}


def load(path: str) -> Callable[..., Any]:
    """Import `package.module:function`."""
    module, _, name = path.partition(":")
    return cast("Callable[..., Any]", getattr(importlib.import_module(module), name))


def main() -> None:
    """Serve the socket whose descriptor, coordinator and function the command line names."""
    descriptor, _, path = sys.argv[1:]
    link = CoordinatorLink(socket.socket(fileno=int(descriptor)))
    serve(link, load(path))
