"""A worker process as the coordinator sees it: how it is started, spoken to, heard and ended."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from automl_pt.core.json_reader import parse_json
from automl_pt.core.safe_path import python_command, python_environment
from automl_pt.core.text import printable
from automl_pt.study.executor.base import TrialSpec

#: seconds in which a worker's keeper ends all that the worker started
LEAVING = 3.0


class WorkerEnded(Exception):  # noqa: N818  # converted to an error that names the plugin
    """The worker's process ended before it answered."""


@dataclass
class Worker:
    """One process and the coordinator's end of its socket."""

    index: int
    process: subprocess.Popen[bytes]
    connection: socket.socket
    log: Path
    spec: TrialSpec | None = None
    ready: bool = False
    #: whether its trial waits for an answer
    waits: bool = False
    #: time of its last message while busy
    heard: float = field(default_factory=time.monotonic)
    buffer: bytes = b""
    #: length of its log at its start, because workers append to one log per study
    log_began: int = 0

    def printed(self) -> str:
        """Return its last output; the log may be gone, because a refused search removes it."""
        text = self.log.read_bytes()[self.log_began :].decode("utf-8", errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return f"it printed last: {printable(lines[-1])[:300]}" if lines else "it printed nothing"

    def send(self, **command: Any) -> None:
        """Send a command."""
        with suppress(OSError):  # the process has died; `receive` finds the socket closed
            self.connection.sendall(json.dumps(command).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]]:
        """Return what arrived on its connection, which is readable; raise WorkerEnded where that is closed."""
        try:
            data = self.connection.recv(1 << 16)
        except ConnectionError:
            data = b""
        if not data:
            raise WorkerEnded
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        received = [dict(parse_json(line, not_finite=True)) for line in lines]
        self.ready = self.ready or any(plain.get("ready") for plain in received)
        return received

    def free(self) -> None:
        """Note that its trial runs here no more."""
        self.waits, self.spec = False, None

    def kill(self) -> None:
        """Kill the process and everything it started."""
        with suppress(OSError):  # the keeper notices this even if other processes hold copies of the connection
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()
        try:
            self.process.wait(LEAVING)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_worker(
    index: int, make: str, logs: Path, threads: int, environment: Mapping[str, str] = MappingProxyType({})
) -> Worker:
    """Start worker `index`, which imports `make`, "package.module:function", and appends its output to a log."""
    ours, theirs = socket.socketpair()
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"worker-{index}.log"
    place = [str(theirs.fileno()), str(os.getpid()), make]
    with theirs, open(log, "ab") as stream:
        began = stream.tell()
        process = subprocess.Popen(
            [*python_command(), "-m", "automl_pt.study.executor.keeper", *place],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env={**python_environment(), **environment, "OMP_NUM_THREADS": str(threads)},
            process_group=0,  # so that Ctrl-C in the terminal reaches the coordinator only
        )
    return Worker(index, process, ours, log, log_began=began)
