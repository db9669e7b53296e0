"""A cluster of three machines in one process: each has threads and a disk of its own, and may fall at any time.

What runs on a machine that has fallen runs on, and still answers: nobody may listen to it.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, field
from typing import Any

from automl_pt.study.executor.base import ExecutorJob
from automl_pt.study.executor.messages import Place
from automl_pt.study.executor.mirrored import MirroredEngine, plugin_files
from automl_pt.study.executor.open_places import PlaceLost
from automl_pt.study.executor.remote_place import RemotePlace

COUNT = itertools.count()


@dataclass
class Machine:
    name: str
    fallen: bool = False


@dataclass
class Handle:
    machine: Machine
    remote: RemotePlace
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))


class ThreadCluster(MirroredEngine):
    """`rate` is the probability with which a machine falls at each answer; a new one then joins."""

    def __init__(self, job: ExecutorJob, machines: int = 3, rate: float = 0.0, seed: int = 0) -> None:
        super().__init__(job)
        self.machines = [Machine(f"machine-{next(COUNT)}") for _ in range(machines)]
        self.rate, self.random, self.falls = rate, random.Random(seed), 0
        self.opened_on: list[str] = []

    @property
    def slots(self) -> int:
        return max(1, len(self.machines))

    def places(self) -> Sequence[Place]:
        return [Place("cpu", "thread", 2**30, machine.name) for machine in self.machines]

    def open_place(self, avoid: frozenset[str]) -> Handle:
        trial_progress = [machine for machine in self.machines if machine.name not in avoid] or self.machines
        machine = self.random.choice(trial_progress)
        self.opened_on.append(machine.name)
        disk = self.job.directory / "disks" / machine.name
        work, cache = str(disk / str(next(COUNT))), str(disk / "cache")
        return Handle(machine, RemotePlace(self.job.trial, work, cache, plugin_files(self.job), "cpu", 1))

    def located(self, handle: Handle) -> Place | None:
        return Place("cpu", "thread", 2**30, handle.machine.name)

    def ask(self, handle: Handle, method: str, *values: Any) -> Future[Any]:
        if method == "stop":
            handle.remote.stop()
            return Future()
        json.dumps([value for value in values if not isinstance(value, bytes | dict)])  # plain values alone
        return handle.pool.submit(getattr(handle.remote, method), *values)

    def answered(self, pending: Sequence[Future[Any]], timeout: float) -> Sequence[Future[Any]]:
        done, _ = wait_for(pending, timeout, FIRST_COMPLETED)
        return [one for one in pending if one in done]

    def answer(self, handle: Handle, pending: Future[Any]) -> Any:
        if self.random.random() < self.rate:
            self.fall(handle.machine)
        if handle.machine.fallen:
            raise PlaceLost(f"{handle.machine.name} was lost")
        return pending.result()

    def close_place(self, handle: Handle) -> None:
        handle.pool.shutdown(wait=False, cancel_futures=True)

    def shortage(self) -> str:
        return "no machine"

    def fall(self, machine: Machine) -> None:
        """Lose a machine; another one joins."""
        machine.fallen = True
        self.falls += 1
        self.machines = [other for other in self.machines if other is not machine]
        self.machines.append(Machine(f"machine-{next(COUNT)}"))

    def lose_a_busy_one(self) -> None:
        """Lose the machine of a running trial."""
        self.fall(next(iter(self._busy.values())).handle.machine)
