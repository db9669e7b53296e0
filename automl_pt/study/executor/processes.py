"""The engine of local worker processes: one per CPU core or GPU, kept for many trials, replaced when they die."""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from automl_pt.core.errors import InstallationError
from automl_pt.core.json_reader import parse_json
from automl_pt.core.safe_path import python_command, python_environment
from automl_pt.study.executor.base import Call, PassProgress, Probe, Report, TrialSpec
from automl_pt.study.executor.calls import STARTING, WorkerEnded, answer, from_plain, how_it_ended, plugin_ended
from automl_pt.study.executor.failures import OUT_OF_MEMORY
from automl_pt.training.result import EpochResult

#: how a process ends that somebody else has ended, SIGKILL and SIGTERM: that says nothing about whether it can start
ENDED_BY_OTHERS = (-9, -15)
#: times a call is made again where somebody else ended its process
CALLS = 3
#: seconds in which a worker's keeper ends all that it started
LEAVING = 3.0


@dataclass
class Worker:
    """One process and the coordinator's end of its socket."""

    index: int
    process: subprocess.Popen[bytes]
    connection: socket.socket
    log: Path
    spec: TrialSpec | None = None
    ready: bool = False
    #: it waits for an answer
    held: bool = False
    #: when it last said something while busy
    heard: float = field(default_factory=time.monotonic)
    buffer: bytes = b""

    def send(self, **command: Any) -> None:
        """Send a command."""
        with suppress(OSError):  # it has died: `wait` reads the end of its socket and reports the crash
            self.connection.sendall(json.dumps(command).encode() + b"\n")

    def kill(self) -> None:
        """End the process and all that it started, at once."""
        with suppress(OSError):  # its keeper sees that, whoever else holds a copy of the connection
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()
        try:
            self.process.wait(LEAVING)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class LocalEngine:
    """Runs one trial per worker process. `devices` names each worker's device; `make` is "package.module:function".

    A trial that says nothing for `limit` seconds is taken to hang and fails.
    """

    def __init__(
        self, make: str, devices: Sequence[str], *, threads: int, logs: Path, limit: float | None = None
    ) -> None:
        self.slots, self.limit = len(devices), limit
        self._make, self._devices, self._threads, self._logs = make, devices, threads, logs
        self._workers: list[Worker] = []
        self._selector = selectors.DefaultSelector()

    def start(self, spec: TrialSpec) -> None:
        """Begin or go on with a trial in a free worker; start a process where there is none yet."""
        worker = next((worker for worker in self._workers if worker.spec is None), None) or self._spawn()
        worker.spec, worker.heard = spec, time.monotonic()
        worker.send(
            do="start",
            number=spec.number,
            config={**spec.config.model_dump(mode="json"), **self._place(worker)},
            output=str(spec.output),
            until=spec.until,
            manifest=str(spec.manifest),
            ranked_at=spec.ranked_at,
        )

    def go_on(self, number: int, until: float) -> None:
        """Let a held trial go on to epoch `until`."""
        worker = self._of(number)
        worker.held, worker.heard = False, time.monotonic()
        worker.send(do="go_on", until=until)

    def pause(self, number: int) -> None:
        """Leave a held trial."""
        worker = self._of(number)
        worker.send(do="pause")
        worker.held, worker.spec = False, None

    def wait(self, timeout: float) -> list[Report]:
        """Return what the workers have sent, after at most `timeout` seconds; replace none of the dead ones yet."""
        if not self._workers:
            return []
        reports: list[Report] = []
        told = [key.data for key, _ in self._selector.select(timeout)]
        for worker in told:
            reports += self._receive(worker)
        for worker in [worker for worker in self._workers if worker not in told]:
            if worker.process.poll() is not None:  # what it started may still hold its connection open
                reports += self._died(worker)
        return reports + self._overdue()

    def call(self, call: Call, unwanted: Callable[[], bool] = lambda: False) -> Any:
        """Call a function in a free worker and wait for what it returns; None once it is `unwanted`.

        Raises what the function raises, and PluginError where its process ends or says nothing within the limit.
        """
        for attempt in range(CALLS):
            worker = next((worker for worker in self._workers if worker.spec is None), None) or self._spawn()
            worker.send(do="call", function=call.function, arguments=dict(call.arguments), place=self._place(worker))
            try:
                message = answer(worker, self.limit, unwanted)
            except WorkerEnded:
                code = worker.process.wait()
                self._remove(worker)
                if not worker.ready and code not in ENDED_BY_OTHERS:
                    raise _cannot_start(code, worker.log) from None
                if code not in ENDED_BY_OTHERS or attempt + 1 == CALLS:
                    raise plugin_ended(call.what, how_it_ended(code), worker.log) from None
                continue
            except TimeoutError:
                self._remove(worker)
                raise plugin_ended(call.what, f"nothing within {self.limit:g} seconds", worker.log) from None
            if message is None:
                self._remove(worker)
                return None
            if "error" in message:
                raise from_plain(message["error"])
            return message["called"]
        raise AssertionError("the last attempt returns or raises")

    def close(self, grace: float = 0.0) -> list[Report]:
        """Let every trial save and stop within `grace` seconds; then kill the processes."""
        reports: list[Report] = []
        deadline = time.monotonic() + grace
        for worker in self._workers:
            worker.send(do="stop")
        self._forget_held()
        while any(worker.spec for worker in self._workers) and (left := deadline - time.monotonic()) > 0:
            reports += [report for report in self.wait(left) if report.held is None]
            self._forget_held()
        for worker in list(self._workers):
            self._remove(worker)
        self._selector.close()
        return reports

    def _forget_held(self) -> None:
        """After "stop" a worker that holds leaves its trial, and has nothing more to say."""
        for worker in self._workers:
            if worker.held:
                worker.held, worker.spec = False, None

    def _place(self, worker: Worker) -> dict[str, Any]:
        return {"device": self._devices[worker.index], "threads": self._threads}

    def _spawn(self) -> Worker:
        index = min(set(range(self.slots)) - {worker.index for worker in self._workers})
        ours, theirs = socket.socketpair()
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"worker-{index}.log"
        environment = {**python_environment(), "OMP_NUM_THREADS": str(self._threads)}
        place = [str(theirs.fileno()), str(os.getpid()), self._make]
        command = [*python_command(), "-m", "automl_pt.study.executor.keeper", *place]
        with theirs, open(log, "ab") as stream:
            process = _popen(command, theirs.fileno(), stream, environment)
        worker = Worker(index, process, ours, log)
        self._selector.register(ours, selectors.EVENT_READ, worker)
        self._workers.append(worker)
        return worker

    def _of(self, number: int) -> Worker:
        return next(worker for worker in self._workers if worker.spec is not None and worker.spec.number == number)

    def _receive(self, worker: Worker) -> list[Report]:
        try:
            data = worker.connection.recv(1 << 16)
        except ConnectionError:
            data = b""
        if not data:
            return self._died(worker)
        worker.heard = time.monotonic()
        *lines, worker.buffer = (worker.buffer + data).split(b"\n")
        return [report for line in lines for report in self._message(worker, parse_json(line, not_finite=True))]

    def _message(self, worker: Worker, message: dict[str, Any]) -> list[Report]:
        if message.get("ready"):
            worker.ready = True
            return []
        number = message.pop("number")
        if "epoch" in message:
            return [Report(number, epoch=EpochResult.from_dict(message["epoch"]))]
        if "probe" in message:
            return [Report(number, probe=Probe(**message["probe"]))]
        if "passed" in message:
            return [Report(number, passed=PassProgress(**message["passed"]))]
        worker.held = "held" in message
        if not worker.held:
            worker.spec = None
        if message.get("failure") == OUT_OF_MEMORY:
            self._remove(worker)  # a fresh process has all of the memory again
        if "fatal" in message:
            return [Report(number, fatal=from_plain(message["fatal"]))]
        return [Report(number, **message)]

    def _died(self, worker: Worker) -> list[Report]:
        code = worker.process.wait()
        self._remove(worker)
        if worker.spec is None:
            return []
        if not worker.ready and code not in ENDED_BY_OTHERS:
            return [Report(worker.spec.number, fatal=_cannot_start(code, worker.log))]
        return [Report(worker.spec.number, crash=how_it_ended(code))]

    def _overdue(self) -> list[Report]:
        reports = []
        for worker in list(self._workers):
            limit = (self.limit or 0.0) if worker.ready else max(self.limit or 0.0, STARTING)
            if self.limit and worker.spec and not worker.held and time.monotonic() - worker.heard > limit:
                self._remove(worker)
                reports.append(Report(worker.spec.number, failure=f"hung: no epoch within {self.limit:.0f} seconds"))
        return reports

    def _remove(self, worker: Worker) -> None:
        self._selector.unregister(worker.connection)
        worker.kill()
        self._workers.remove(worker)


def _popen(command: list[str], descriptor: int, log: IO[bytes], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        pass_fds=(descriptor,),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environment,
        process_group=0,  # a Ctrl-C on the terminal reaches the coordinator alone
    )


def _cannot_start(code: int, log: Path) -> InstallationError:
    tail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    return InstallationError(
        "a worker process must be able to start",
        given=f"{how_it_ended(code)}: {' '.join(tail) or 'it said nothing'}",
        remedy=f"read {log}, or search with `--workers 0` to run the trials in this process",
    )
