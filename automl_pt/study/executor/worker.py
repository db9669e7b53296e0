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
from collections.abc import Callable, Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from automl_pt.config import TrainConfig
from automl_pt.core.errors import AutomlError, PluginError
from automl_pt.core.json_reader import parse_json
from automl_pt.study.executor.base import MakeTrial, PassProgress, Probe, Report, TrialSpec
from automl_pt.study.executor.calls import as_plain
from automl_pt.study.executor.failures import report_failure


class Link:
    """The worker's end of the socket: commands come in on a thread of their own, messages go out whole."""

    def __init__(self, connection: socket.socket) -> None:
        # two streams: one for both would forget what it has read, but not handed out yet, whenever something is sent
        self._incoming = connection.makefile("r", encoding="utf-8", newline="\n")
        self._outgoing = connection.makefile("w", encoding="utf-8", newline="\n")
        self._commands: queue.Queue[dict[str, Any]] = queue.Queue()
        self._stop = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._incoming:
            command = parse_json(line, not_finite=True)
            if command["do"] == "stop":
                self._stop.set()
            self._commands.put(command)
        os._exit(0)  # the coordinator is gone: leave at once, the last checkpoint stands

    def stopping(self) -> bool:
        """Say whether the coordinator asked to save and stop."""
        return self._stop.is_set()

    def next_command(self) -> dict[str, Any]:
        """Wait for the next command."""
        return self._commands.get()

    def send(self, **message: Any) -> None:
        """Send one message."""
        self._outgoing.write(json.dumps(message) + "\n")
        self._outgoing.flush()


def serve(link: Link, make: MakeTrial) -> None:
    """Run the trials that are asked for, until asked to stop."""
    link.send(ready=True)
    while not link.stopping():
        command = link.next_command()
        if command["do"] == "start":
            spec = TrialSpec(
                number=command["number"],
                config=TrainConfig(**command["config"]),
                output=Path(command["output"]),
                until=command["until"],
                manifest=Path(command["manifest"]),
                ranked_at=tuple(command["ranked_at"]),
            )
            try:
                run_trial(link, make, spec)
            except (Exception, SystemExit) as error:
                link.send(**failure_message(report_failure(spec.number, error)))
        elif command["do"] == "call":
            link.send(**answer(command))


def answer(command: dict[str, Any]) -> dict[str, Any]:
    """Call the function that a command names, with the device and the threads of this worker, and answer it."""
    try:
        function = load(command["function"])
        return {"called": function(**command["arguments"], **command["place"])}
    except AutomlError as error:
        return {"called": None, "error": as_plain(error)}
    except (Exception, SystemExit) as error:
        told = PluginError(
            "A plugin's code failed",
            given=f"{type(error).__name__}: {error}",
            remedy="correct the plugin, or leave it out",
        )
        return {"called": None, "error": as_plain(told)}


def run_trial(link: Link, make: MakeTrial, spec: TrialSpec) -> None:
    """Send each epoch of one trial; hold where told to."""
    epochs, until = make(spec, link.stopping), spec.until
    try:
        for result in epochs:
            if isinstance(result, PassProgress):
                link.send(number=spec.number, passed=asdict(result))
                continue
            if isinstance(result, Probe):
                link.send(number=spec.number, probe=asdict(result))
            else:
                link.send(number=spec.number, epoch=result.to_dict())
            if (isinstance(result, Probe) or result.reason is None) and result.epoch >= until:
                link.send(number=spec.number, held=result.epoch)
                answer = link.next_command()
                if answer["do"] != "go_on":
                    return
                until = answer["until"]
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
    link = Link(socket.socket(fileno=int(descriptor)))
    serve(link, load(path))
