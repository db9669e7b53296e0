"""The executor of local worker processes: one per CPU core or GPU, reused for many trials, replaced when they die."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from automl_pt.core.errors import InstallationError
from automl_pt.study.executor import failures
from automl_pt.study.executor.base import Answer, Call, Engine, ExecutorJob, TrialSpec
from automl_pt.study.executor.calls import DEVICE_LOST, STARTING, did_not_return, how_it_ended, listen, result_of
from automl_pt.study.executor.messages import (
    EpochEnded,
    Message,
    PassAdvanced,
    Place,
    ProxyRunEnded,
    StudyFailed,
    TrialCrashed,
    TrialFailed,
    TrialWaits,
    message_from_plain,
)
from automl_pt.study.executor.worker_process import Worker, WorkerEnded, start_worker

#: exit codes of processes that are not to blame: ended from outside, by SIGKILL and SIGTERM, or by the loss of their
#: GPU; these say nothing about whether one can start
ENDED_BY_OTHERS = (-9, -15, DEVICE_LOST)
#: attempts of a call whose process was ended so
CALLS = 3


class LocalEngine(Engine):
    """Runs one trial per worker process. `devices` names each worker's device; `make` is "package.module:function".

    A trial that sends nothing for `limit` seconds is considered hung, and fails.
    """

    def __init__(
        self, make: str, devices: Sequence[str], *, threads: int, logs: Path, limit: float | None = None
    ) -> None:
        self.limit = limit
        self._make, self._devices, self._threads, self._logs = make, devices, threads, logs
        self._environment: dict[str, str] = {}  # of the workers, beside this process's own
        self._halted = False
        self._unrecorded: str | None = None  # why a CUDA graph could not be recorded: no trial tries again
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
        plain = spec.as_plain()
        plain["config"] |= self._place(worker)
        worker.send(do="start", spec=plain, unrecorded=self._unrecorded, **self._limits())

    def resume(self, number: int, next_rung: float) -> None:
        """Let a waiting trial continue to epoch `next_rung`."""
        worker = self._of(number)
        worker.waits, worker.heard = False, time.monotonic()
        worker.send(do="resume", next_rung=next_rung)

    def pause(self, number: int) -> None:
        """Drop a waiting trial."""
        worker = self._of(number)
        worker.send(do="pause")
        worker.free()

    def wait(self, timeout: float) -> list[Message]:
        """Return the workers' messages, after at most `timeout` seconds; dead workers are not replaced yet."""
        if not self._workers:
            return []
        told = [key.data for key, _ in self._selector.select(timeout)]
        messages = [message for worker in told for message in self._receive(worker)]
        for worker in [worker for worker in self._workers if worker not in told]:
            if worker.process.poll() is not None:  # its descendants may still hold its connection open
                messages += self._died(worker)
        return messages + self._overdue()

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
            return None if message is None else result_of(message, call.what)
        raise AssertionError("the last attempt returns or raises")

    def halt(self, grace: float) -> list[Message]:
        """Let every trial save and stop within `grace` seconds; end all processes but one, which gets all threads."""
        messages: list[Message] = []
        deadline = time.monotonic() + grace
        for worker in self._workers:
            worker.send(do="stop")
        self._forget_waiting()
        while any(worker.spec for worker in self._workers) and (left := deadline - time.monotonic()) > 0:
            messages += [message for message in self.wait(left) if not isinstance(message, TrialWaits)]
            self._forget_waiting()
        for worker in [worker for worker in self._workers if worker.spec is not None]:
            self._remove(worker)
        for worker in self._workers[1:]:
            self._remove(worker)
        self._halted = True
        return messages

    def close(self, grace: float = 0.0) -> list[Message]:
        """Let every trial save and stop within `grace` seconds; then kill the processes."""
        messages = self.halt(grace)
        for worker in list(self._workers):
            self._remove(worker)
        self._selector.close()
        return messages

    def _forget_waiting(self) -> None:
        """Free the workers whose trials wait, because they send nothing more after "stop"."""
        for worker in self._workers:
            if worker.waits:
                worker.free()

    def _free(self) -> Worker:
        """Return a worker without a trial; start one if there is none."""
        return next((worker for worker in self._workers if worker.spec is None), None) or self._spawn()

    def _limits(self) -> dict[str, Any]:
        """Return limits of a trial's process, to be sent with the trial."""
        return {}

    def _place(self, worker: Worker) -> dict[str, Any]:
        threads = self._threads * (self.slots if self._halted else 1)
        return {"device": self._devices[worker.index], "threads": threads}

    def _spawn(self) -> Worker:
        index = min(set(range(self.slots)) - {worker.index for worker in self._workers})
        worker = start_worker(index, self._make, self._logs, self._threads, self._environment)
        self._selector.register(worker.connection, selectors.EVENT_READ, worker)
        self._workers.append(worker)
        return worker

    def _of(self, number: int) -> Worker:
        return next(worker for worker in self._workers if worker.spec is not None and worker.spec.number == number)

    def _receive(self, worker: Worker) -> list[Message]:
        try:
            received = worker.receive()
        except WorkerEnded:
            return self._died(worker)
        worker.heard = time.monotonic()
        return [self._take(worker, plain) for plain in received if "ready" not in plain]

    def _take(self, worker: Worker, plain: dict[str, Any]) -> Message:
        """Return a worker's message, after noting what it says about the worker."""
        self._unrecorded = plain.get("unrecorded", self._unrecorded)
        message = message_from_plain(plain)
        match message:
            case PassAdvanced() | ProxyRunEnded() | EpochEnded():
                pass
            case TrialWaits():
                worker.waits = True
            case TrialCrashed() | TrialFailed(reason=failures.OUT_OF_MEMORY):
                worker.free()
                self._remove(worker)  # a new process starts with all of the memory free, and with a GPU that works
            case _:
                worker.free()
        return message

    def _died(self, worker: Worker) -> list[Message]:
        code = worker.process.wait()
        self._remove(worker)
        if worker.spec is None:
            return []
        if not worker.ready and code not in ENDED_BY_OTHERS:
            return [StudyFailed(worker.spec.number, _cannot_start(code, worker))]
        return [TrialCrashed(worker.spec.number, how_it_ended(code))]

    def _overdue(self) -> list[Message]:
        messages = list[Message]()
        for worker in list(self._workers):
            limit = (self.limit or 0.0) if worker.ready else max(self.limit or 0.0, STARTING)
            if self.limit and worker.spec and not worker.waits and time.monotonic() - worker.heard > limit:
                self._remove(worker)
                messages.append(TrialFailed(worker.spec.number, f"hung: no epoch within {self.limit:.0f} seconds"))
        return messages

    def _remove(self, worker: Worker) -> None:
        self._selector.unregister(worker.connection)
        worker.kill()
        self._workers.remove(worker)


def make_executor(job: ExecutorJob) -> LocalEngine:
    """Return worker processes: as many, and on the devices, as the settings say."""
    from automl_pt.study.executor.devices import devices_for, threads_for

    config = job.config
    devices = devices_for(config.device, config.fixed_workers, config.trials)
    if config.trials_per_gpu is not None:
        from automl_pt.study.executor.shared_gpu import make_shared

        return make_shared(job, devices, lambda workers: threads_for(config.threads, workers))
    threads, limit = threads_for(config.threads, len(devices)), config.trial_timeout
    return LocalEngine(job.trial, devices, threads=threads, logs=job.directory / "logs", limit=limit)


def _cannot_start(code: int, worker: Worker) -> InstallationError:
    return InstallationError(
        "a worker process cannot start",
        given=f"{how_it_ended(code)}; {worker.printed()}",
        remedy="correct the cause shown, or search with `--workers 0` to run the trials in this process",
    )
