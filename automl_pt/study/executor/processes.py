"""The executor of local worker processes: one per CPU core or GPU, reused for many trials, replaced when they die."""

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
from automl_pt.core.text import printable
from automl_pt.study.executor.base import (
    Answer,
    Call,
    Engine,
    ExecutorJob,
    PassProgress,
    Place,
    ProxyRun,
    Report,
    TrialSpec,
)
from automl_pt.study.executor.calls import (
    STARTING,
    WorkerEnded,
    did_not_return,
    failed,
    from_plain,
    how_it_ended,
    listen,
)
from automl_pt.study.executor.failures import OUT_OF_MEMORY
from automl_pt.training.result import EpochResult

#: exit codes of processes ended from outside, by SIGKILL and SIGTERM, which say nothing about whether one can start
ENDED_BY_OTHERS = (-9, -15)
#: attempts of a call whose process was ended from outside
CALLS = 3
#: seconds in which a worker's keeper ends all that the worker started
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
    #: whether it waits for an answer
    held: bool = False
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
        with suppress(OSError):  # the process has died; `wait` finds its socket closed and reports the crash
            self.connection.sendall(json.dumps(command).encode() + b"\n")

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


class LocalEngine(Engine):
    """Runs one trial per worker process. `devices` names each worker's device; `make` is "package.module:function".

    A trial that sends nothing for `limit` seconds is considered hung, and fails.
    """

    def __init__(
        self, make: str, devices: Sequence[str], *, threads: int, logs: Path, limit: float | None = None
    ) -> None:
        self.limit = limit
        self._make, self._devices, self._threads, self._logs = make, devices, threads, logs
        self._halted = False
        self._workers: list[Worker] = []
        self._selector = selectors.DefaultSelector()

    @property
    def slots(self) -> int:
        """Return the number of workers."""
        return len(self._devices)

    def places(self) -> Sequence[Place]:
        """Return each worker's device, and its share of that device's memory."""
        from automl_pt.study.executor.devices import places_for

        return places_for(self._devices)

    def start(self, spec: TrialSpec) -> None:
        """Start or resume a trial in a free worker; start a process if there is none."""
        worker = self._free()
        worker.spec, worker.heard = spec, time.monotonic()
        worker.send(
            do="start",
            number=spec.number,
            config={**spec.config.model_dump(mode="json"), **self._place(worker)},
            output=str(spec.output),
            next_rung=spec.next_rung,
            manifest=str(spec.manifest),
            ranked_at=spec.ranked_at,
            worth_saving=spec.worth_saving,
        )

    def resume(self, number: int, next_rung: float) -> None:
        """Let a waiting trial continue to epoch `next_rung`."""
        worker = self._of(number)
        worker.held, worker.heard = False, time.monotonic()
        worker.send(do="resume", next_rung=next_rung)

    def pause(self, number: int) -> None:
        """Drop a waiting trial."""
        worker = self._of(number)
        worker.send(do="pause")
        worker.held, worker.spec = False, None

    def wait(self, timeout: float) -> list[Report]:
        """Return the workers' messages, after at most `timeout` seconds; dead workers are not replaced yet."""
        if not self._workers:
            return []
        told = [key.data for key, _ in self._selector.select(timeout)]
        reports = [report for worker in told for report in self._receive(worker)]
        for worker in [worker for worker in self._workers if worker not in told]:
            if worker.process.poll() is not None:  # its descendants may still hold its connection open
                reports += self._died(worker)
        return reports + self._overdue()

    def call(self, call: Call, unwanted: Callable[[], bool] = lambda: False) -> Answer:
        """Call a function in a free worker, up to `CALLS` times if its process was ended from outside."""
        for attempt in range(CALLS):
            worker = self._free()
            worker.send(do="call", function=call.function, arguments=dict(call.arguments), place=self._place(worker))
            message = None
            try:
                message = yield from listen(worker, self.limit, unwanted, call.grace)
            except WorkerEnded:
                code = worker.process.wait()
                if not worker.ready and code not in ENDED_BY_OTHERS:
                    raise _cannot_start(code, worker) from None
                if code not in ENDED_BY_OTHERS or attempt + 1 == CALLS:
                    raise did_not_return(call.what, how_it_ended(code), worker.printed()) from None
                continue
            except TimeoutError:
                how = f"nothing within {self.limit:g} seconds"
                raise did_not_return(call.what, how, worker.printed()) from None
            finally:
                if message is None:  # the call is unwanted, and the worker has ended or does not stop
                    self._remove(worker)
            return None if message is None else _returned(message, call.what)
        raise AssertionError("the last attempt returns or raises")

    def halt(self, grace: float) -> list[Report]:
        """Let every trial save and stop within `grace` seconds; end all processes but one, which gets all threads."""
        reports: list[Report] = []
        deadline = time.monotonic() + grace
        for worker in self._workers:
            worker.send(do="stop")
        self._forget_waiting()
        while any(worker.spec for worker in self._workers) and (left := deadline - time.monotonic()) > 0:
            reports += [report for report in self.wait(left) if report.held is None]
            self._forget_waiting()
        for worker in [worker for worker in self._workers if worker.spec is not None]:
            self._remove(worker)
        for worker in self._workers[1:]:
            self._remove(worker)
        self._halted = True
        return reports

    def close(self, grace: float = 0.0) -> list[Report]:
        """Let every trial save and stop within `grace` seconds; then kill the processes."""
        reports = self.halt(grace)
        for worker in list(self._workers):
            self._remove(worker)
        self._selector.close()
        return reports

    def _forget_waiting(self) -> None:
        """Free the workers whose trials wait, because they send nothing more after "stop"."""
        for worker in self._workers:
            if worker.held:
                worker.held, worker.spec = False, None

    def _free(self) -> Worker:
        """Return a worker without a trial; start one if there is none."""
        return next((worker for worker in self._workers if worker.spec is None), None) or self._spawn()

    def _place(self, worker: Worker) -> dict[str, Any]:
        threads = self._threads * (self.slots if self._halted else 1)
        return {"device": self._devices[worker.index], "threads": threads}

    def _spawn(self) -> Worker:
        index = min(set(range(self.slots)) - {worker.index for worker in self._workers})
        ours, theirs = socket.socketpair()
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"worker-{index}.log"
        environment = {**python_environment(), "OMP_NUM_THREADS": str(self._threads)}
        place = [str(theirs.fileno()), str(os.getpid()), self._make]
        command = [*python_command(), "-m", "automl_pt.study.executor.keeper", *place]
        with theirs, open(log, "ab") as stream:
            began = stream.tell()
            process = _popen(command, theirs.fileno(), stream, environment)
        worker = Worker(index, process, ours, log, log_began=began)
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
            return [Report(number, probe=ProxyRun(**message["probe"]))]
        if "passed" in message:
            return [Report(number, passed=PassProgress(**message["passed"]))]
        worker.held = "held" in message
        if not worker.held:
            worker.spec = None
        if message.get("failure") == OUT_OF_MEMORY:
            self._remove(worker)  # a new process starts with all of the memory free
        if "fatal" in message:
            return [Report(number, fatal=from_plain(message["fatal"]))]
        return [Report(number, **message)]

    def _died(self, worker: Worker) -> list[Report]:
        code = worker.process.wait()
        self._remove(worker)
        if worker.spec is None:
            return []
        if not worker.ready and code not in ENDED_BY_OTHERS:
            return [Report(worker.spec.number, fatal=_cannot_start(code, worker))]
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


def make_executor(job: ExecutorJob) -> LocalEngine:
    """Return worker processes: as many, and on the devices, as the settings say."""
    from automl_pt.study.executor.devices import devices_for, threads_for

    devices = devices_for(job.config)
    threads, limit = threads_for(job.config, len(devices)), job.config.trial_timeout
    return LocalEngine(job.trial, devices, threads=threads, logs=job.directory / "logs", limit=limit)


def _returned(message: dict[str, Any], what: str) -> Any:
    """Return a called function's result; raise its error."""
    if "error" in message:
        raise from_plain(message["error"])
    if "failed" in message:
        raise failed(what, message["failed"])
    return message["called"]


def _popen(command: list[str], descriptor: int, log: IO[bytes], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        pass_fds=(descriptor,),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environment,
        process_group=0,  # so that Ctrl-C in the terminal reaches the coordinator only
    )


def _cannot_start(code: int, worker: Worker) -> InstallationError:
    return InstallationError(
        "a worker process cannot start",
        given=f"{how_it_ended(code)}; {worker.printed()}",
        remedy="correct the cause shown, or search with `--workers 0` to run the trials in this process",
    )
