"""A worker process: runs one trial after another and sends what comes out, as JSON lines over a socket.

It is started by `local` as a fresh interpreter, so that nothing of the coordinator's state comes along, whatever script
called it. It ends when the socket does, and on Linux the kernel ends it with its parent: no orphan keeps a GPU.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import queue
import signal
import socket
import sys
import threading
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from automl_pt.config import TrainConfig
from automl_pt.errors import AutomlError
from automl_pt.study.engine.base import MakeTrial, PassProgress, Probe, Report, TrialSpec
from automl_pt.study.engine.failures import report_failure

PR_SET_PDEATHSIG = 1


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
            command = json.loads(line)
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
            except Exception as error:
                link.send(**failure_message(report_failure(spec.number, error)))


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
    error = report.fatal
    if isinstance(error, AutomlError):
        parts = {"type": type(error).__name__, "rule": error.rule, "given": error.given, "remedy": error.remedy}
        return {"number": report.number, "fatal": parts}
    return {"number": report.number, "failure": report.failure}


def die_with_parent(parent: int) -> None:
    """Ask the Linux kernel to kill this process when its parent dies; elsewhere the socket's end does it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def load(path: str) -> MakeTrial:
    """Import `package.module:function`."""
    module, _, name = path.partition(":")
    return cast(MakeTrial, getattr(importlib.import_module(module), name))


def main() -> None:
    """Serve the socket whose descriptor, parent and function the command line names."""
    descriptor, parent, path = sys.argv[1:]
    die_with_parent(int(parent))
    # the coordinator's to handle, which lets the trial save: who ends a whole job sends SIGTERM to all its processes
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    link = Link(socket.socket(fileno=int(descriptor)))
    serve(link, load(path))


if __name__ == "__main__":
    main()
