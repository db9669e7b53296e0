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
from typing import Any, cast

from automl_pt.core.errors import AutomlError, DeviceLostError, RecordingError
from automl_pt.core.json_reader import parse_json
from automl_pt.core.out_of_memory import Recording, is_device_lost
from automl_pt.plugins.faults import described
from automl_pt.study.executor.base import Caller, MakeTrial, TrialSpec
from automl_pt.study.executor.calls import DEVICE_LOST, returned
from automl_pt.study.executor.failures import failure_of
from automl_pt.study.executor.messages import (
    IteratorEnded,
    TrialStopped,
    TrialWaits,
    error_as_plain,
    message_as_plain,
    messages_of,
)

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
            spec = TrialSpec.from_plain(command["spec"])
            limit_memory(spec.config.device, command.get("memory_limit"))
            Recording.forbidden, Recording.replaceable = command.get("unrecorded"), True
            try:
                run_trial(link, make, spec)
            except (Exception, SystemExit) as error:
                unrecorded = {"unrecorded": error.given} if isinstance(error, RecordingError) else {}
                link.send(**message_as_plain(failure_of(spec.number, error)), **unrecorded)
            Recording.replaceable = False
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
        if isinstance(error, DeviceLostError):
            os._exit(DEVICE_LOST)
        return {"called": None, "error": error_as_plain(error)}
    except (Exception, SystemExit) as error:
        traceback.print_exc()  # into the worker's log
        if is_device_lost(error):
            os._exit(DEVICE_LOST)  # a new process calls the function again
        return {"called": None, "failed": described(error)}


def run_trial(link: CoordinatorLink, make: MakeTrial, spec: TrialSpec) -> None:
    """Send what each step of one trial says; wait where it reaches its next rung."""
    steps, next_rung = make(spec, link.stopping), spec.next_rung
    try:
        for step in steps:
            messages = messages_of(spec.number, step, next_rung)
            for message in messages:
                link.send(**message_as_plain(message), **gpu_memory(spec.config.device))
            if isinstance(messages[-1], TrialWaits):
                answer = link.next_command()
                if answer["do"] != "resume":
                    return
                next_rung = answer["next_rung"]
        ended = TrialStopped(spec.number) if link.stopping() else IteratorEnded(spec.number)
        link.send(**message_as_plain(ended))
    finally:
        if isinstance(steps, Generator):
            steps.close()


def limit_memory(device: str, limit: int | None) -> None:
    """Let torch take at most `limit` bytes of a GPU that others share, and all of it for 0; None leaves it as it is."""
    if limit is not None and device.startswith("cuda"):
        import torch

        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total) if limit else 1.0, device)


def gpu_memory(device: str) -> dict[str, Any]:
    """Return the bytes of a GPU that this process could have, and those that it has had at most."""
    if not device.startswith("cuda"):
        return {}
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    return {"gpu_memory": [free + torch.cuda.memory_reserved(device), torch.cuda.max_memory_reserved(device)]}


def load(path: str) -> Callable[..., Any]:
    """Import `package.module:function`."""
    module, _, name = path.partition(":")
    return cast("Callable[..., Any]", getattr(importlib.import_module(module), name))


def main() -> None:
    """Serve the socket; the command line gives its descriptor, the coordinator and the function."""
    descriptor, _, path = sys.argv[1:]
    link = CoordinatorLink(socket.socket(fileno=int(descriptor)))
    serve(link, load(path))
