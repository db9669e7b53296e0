"""Worker processes of which several share each GPU: how many is set, or measured while trials run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from automl_pt.core.errors import DeviceError
from automl_pt.study.executor import failures
from automl_pt.study.executor.base import ExecutorJob, TrialSpec
from automl_pt.study.executor.devices import places_for
from automl_pt.study.executor.gpu_share import TrialsPerGpu, memory_limit
from automl_pt.study.executor.messages import (
    EpochEnded,
    Message,
    ProxyRunEnded,
    TrialFailed,
    TrialLostPlace,
)
from automl_pt.study.executor.mps import Mps
from automl_pt.study.executor.processes import LocalEngine
from automl_pt.study.executor.worker_process import Worker

#: makes an engine's threads for each worker from the number of workers
Threads = Callable[[int], int]


class SharedGpuEngine(LocalEngine):
    """Runs `share.count` trials on each of the GPUs; a trial that lacks memory beside others is repeated with fewer."""

    def __init__(
        self, make: str, gpus: Sequence[str], share: TrialsPerGpu, *, threads: Threads, logs: Path, limit: float | None
    ) -> None:
        super().__init__(make, [*gpus] * share.count, threads=threads(len(gpus) * share.count), logs=logs, limit=limit)
        self._gpus, self._share, self._threads_for = list(gpus), share, threads
        self._said: list[str] = []
        self._mixed: set[int] = set()
        self._mps = Mps()
        without = self._mps.start()
        self._environment = self._mps.environment
        if without is not None:
            self._said.append(without)
            if share.asked is None:  # in turns they do no more together
                share.is_settled = True

    def notices(self) -> Sequence[str]:
        """Return what has changed in how the GPUs are shared."""
        said, self._said = self._said, []
        return said

    def start(self, spec: TrialSpec) -> None:
        """Start or resume a trial; what it reports first may have been measured beside fewer trials."""
        self._mixed.add(spec.number)
        super().start(spec)

    def close(self, grace: float = 0.0) -> list[Message]:
        """Let every trial save and stop within `grace` seconds; then end the processes and MPS."""
        messages = super().close(grace)
        self._mps.close()
        return messages

    def _limits(self) -> dict[str, Any]:
        return {"memory_limit": memory_limit(self._share.free, self._share.count)}

    def _free(self) -> Worker:
        for worker in [one for one in self._workers if one.spec is None and one.index >= self.slots]:
            self._remove(worker)  # of a time with more trials
        return super()._free()

    def _take(self, worker: Worker, plain: dict[str, Any]) -> Message:
        spec, device = worker.spec, self._gpus[worker.index % len(self._gpus)]
        message = super()._take(worker, plain)
        if "gpu_memory" in plain:
            self._share.learn_memory(*plain["gpu_memory"])
        match message:
            case EpochEnded() | ProxyRunEnded() if spec is not None:
                self._learn(message, spec, device)
            case TrialFailed(number, reason=failures.OUT_OF_MEMORY):
                if (changed := self._share.exhausted()) is not None:
                    self._resize(None)
                    return TrialLostPlace(number, changed)
            case _:
                pass
        return message

    def _learn(self, message: EpochEnded | ProxyRunEnded, spec: TrialSpec, device: str) -> None:
        """Note the speed of a trial that ran all the time beside as many others as there are to be."""
        busy = sum(one.spec is not None and self._gpus[one.index % len(self._gpus)] == device for one in self._workers)
        if message.number in self._mixed or busy != self._share.count:
            self._mixed.discard(message.number)
            return
        match message:
            case EpochEnded(result=result):
                kind, speed = "epoch", result.images_per_second
            case ProxyRunEnded(result=run):
                kind, speed = f"proxy run of {run.epoch}", run.epoch / max(run.seconds, 1e-9)
        self._resize(self._share.learn_speed((kind, spec.config.backbone, spec.config.batch_size), speed))

    def _resize(self, said: str | None) -> None:
        """Have as many workers as there are trials to run, and tell the user why."""
        self._said += [said] if said is not None else []
        devices = self._gpus * self._share.count
        if len(devices) != len(self._devices):
            self._devices = devices
            self._threads = self._threads_for(len(devices))
            self._mixed |= {one.spec.number for one in self._workers if one.spec is not None}


def make_shared(job: ExecutorJob, devices: Sequence[str], threads: Threads) -> SharedGpuEngine:
    """Return worker processes that share GPUs as the setting `trials_per_gpu` says."""
    gpus = [device for device in dict.fromkeys(devices) if device.startswith("cuda")]
    asked = job.config.trials_per_gpu
    if not gpus:
        raise DeviceError(
            "no GPU that trials could share",
            given=f"--trials-per-gpu {asked}, on {devices[0]}",
            remedy="leave it out: on a CPU --workers says how many trials run at once",
        )
    free = min(place.memory for place in places_for(gpus))
    share = TrialsPerGpu(None if asked in (None, "auto") else int(asked), free=free)
    logs, limit = job.directory / "logs", job.config.trial_timeout
    return SharedGpuEngine(job.trial, gpus, share, threads=threads, logs=logs, limit=limit)
