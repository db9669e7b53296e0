"""The executor of a Ray cluster: one actor for each trial that runs, on whichever machine has what a trial asks for.

It connects to a cluster that is there and starts none, because every program that reaches Ray's ports can run code. The
coordinator's machine needs no GPU, and no folder is shared. This module is imported when `--engine ray` chooses it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

# read when ray is imported: no usage data are sent; and below `uv run`, the working folder, which may hold the images,
# is not copied to every machine, nor is each actor started in an environment that is built there from that copy
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError, RuntimeEnvSetupError

from automl_pt.core.errors import DeviceError
from automl_pt.core.files import cache_folder, is_running
from automl_pt.core.text import counted
from automl_pt.study.executor.base import Answer, Call, ExecutorJob
from automl_pt.study.executor.builtin import ray_address
from automl_pt.study.executor.messages import Message, Place
from automl_pt.study.executor.mirrored import MirroredEngine, plugin_files
from automl_pt.study.executor.open_places import PlaceCrashed, PlaceLost
from automl_pt.study.executor.processes import LocalEngine
from automl_pt.study.executor.remote_place import RemotePlace

#: seconds between two looks at which machines there are
LOOK = 1.0
#: seconds in which a machine must answer to count as alive, and in which the cluster is reached
ANSWERS, REACHED = 2.0, 10.0
#: extras that train, on the coordinator's machine
TRAINED_HERE = ("refit", "folds")


class RayPlace(RemotePlace):
    """A `RemotePlace` that also says on which machine of the cluster it is."""

    def __init__(self, trial: str, files: dict[str, bytes], gpus: float, threads: int) -> None:
        import torch

        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
        torch.set_num_threads(threads)
        self._share = gpus or 1.0
        # a trial that takes more than its share fails alone, and not its neighbour; without CUDA a trial says so itself
        if self._share < 1 and torch.cuda.is_available():
            torch.cuda.set_per_process_memory_fraction(self._share)
        machine = cache_folder() / "places" / ray.get_runtime_context().get_node_id()[:16]
        for left in machine.glob("work-*"):  # of actors that were killed
            if not is_running(int(left.name.removeprefix("work-"))):
                shutil.rmtree(left, ignore_errors=True)
        super().__init__(
            trial, str(machine / f"work-{os.getpid()}"), str(machine), files, "cuda:0" if gpus else "cpu", threads
        )

    def where(self) -> dict[str, Any]:
        """Describe this place, in plain values."""
        import torch

        from automl_pt.study.executor.devices import places_for

        has_device = self._device == "cpu" or torch.cuda.is_available()
        found = places_for([self._device])[0] if has_device else Place(self._device, "a GPU that torch cannot use")
        node = ray.get_runtime_context().get_node_id()
        memory = int(found.memory * self._share)
        return {
            "device": found.device,
            "kind": found.kind,
            "memory": memory,
            "node": node,
            "host": socket.gethostname(),
        }


class RayEngine(MirroredEngine):
    """Runs trials as actors of the Ray cluster at `ray_address`."""

    def __init__(self, job: ExecutorJob) -> None:
        super().__init__(job)
        config = job.config
        self._gpus, self._cpus = config.gpus_per_trial or 0.0, config.cpus_per_trial or 1
        self._files = plugin_files(job)
        self._described: dict[Any, Any] = {}
        self._places: dict[str, Place] = {}
        self._node_ids: dict[str, str] = {}
        self._nodes: tuple[float, list[dict[str, Any]]] = (0.0, [])
        self._here: LocalEngine | None = None
        if trains := [name for name in TRAINED_HERE if name in config.extras]:
            text = f"{' and '.join(trains)}: trained on this machine ({_device_here()}), because the images are here"
            self._said.append(text)
        self._connected = connect(config.ray_address)
        self._asks = {"num_cpus": self._cpus, "num_gpus": self._gpus}
        options = {"max_restarts": 0, "max_task_retries": 0, "concurrency_groups": {"control": 1}}
        self._actor = ray.remote(**self._asks, **options)(RayPlace)

    @property
    def slots(self) -> int:
        """Return how many trials fit on the machines that are alive, at most `workers` and at least 1."""
        room = sum(trials_on(node["Resources"], self._cpus, self._gpus) for node in self._alive())
        return max(1, min(room, self.job.config.workers or room))

    def places(self) -> Sequence[Place]:
        """Return the places that trials have had, one for each kind of machine that is known."""
        return list(self._places.values())

    def open_place(self, avoid: frozenset[str]) -> Any:
        """Ask Ray for an actor, on none of the machines that were lost."""
        nodes = sorted(self._node_ids[name] for name in avoid)
        options: dict[str, Any] = {"label_selector": {"ray.io/node-id": f"!in({','.join(nodes)})"}} if nodes else {}
        threads = self.job.config.threads or max(1, int(self._cpus))
        actor = self._actor.options(**options).remote(self.job.trial, self._files, self._gpus, threads)
        self._described[actor] = actor.where.remote()
        return actor

    def located(self, handle: Any) -> Place | None:
        """Return where an actor is; None while it waits for a machine."""
        asked = self._described.get(handle)
        if asked is None or not ray.wait([asked], timeout=0)[0]:
            return None
        try:
            found = ray.get(asked)
        except RayError:  # it has died: its trial's own answer says so
            return None
        name = f"{found['host']}/{found['node'][:12]}"
        self._node_ids[name] = found["node"]
        place = Place(found["device"], found["kind"], found["memory"], name)
        self._places[f"{place.kind} {found['host']}"] = place
        return place

    def ask(self, handle: Any, method: str, *values: Any) -> Any:
        """Call a method of the actor; `stop` has a thread of its own there."""
        remote = getattr(handle, method)
        return (remote.options(concurrency_group="control") if method == "stop" else remote).remote(*values)

    def answered(self, pending: Sequence[Any], timeout: float) -> Sequence[Any]:
        """Return all calls that are answered, at least one where one comes within `timeout` seconds."""
        done, _ = ray.wait(list(pending), num_returns=1, timeout=timeout)
        if done:  # a busy coordinator decides once for all that has come since
            done, _ = ray.wait(list(pending), num_returns=len(pending), timeout=0)
        return list(done)

    def answer(self, handle: Any, pending: Any) -> Any:
        """Return an answer; tell a lost machine from a dead process."""
        try:
            return ray.get(pending)
        except RayTaskError as error:
            raise PlaceCrashed(f"its place failed: {str(error.cause)[:300]}") from None
        except RayActorError as error:
            if error.actor_init_failed:
                raise PlaceCrashed(f"its place could not begin: {str(error).strip().splitlines()[-1][:300]}") from None
            raise self._ended(handle) from error
        except (OutOfMemoryError, RuntimeEnvSetupError) as error:  # no other machine need be better
            raise PlaceCrashed(f"its place failed: {str(error).strip()[:300]}") from None
        except RayError as error:  # an answer that lay on a machine that is gone
            raise PlaceLost(f"its place was lost ({type(error).__name__})") from None

    def close_place(self, handle: Any) -> None:
        """Kill the actor."""
        self._described.pop(handle, None)
        with suppress(Exception):  # the cluster may be gone as a whole, and the actor with it
            ray.kill(handle, no_restart=True)

    def share(self, content: bytes) -> Any:
        """Put a content into Ray's object store, which brings it once to each machine."""
        return ray.put(content)

    def shortage(self) -> str:
        """Say what a trial asks for, and what the cluster has."""
        with ThreadPoolExecutor(32) as pool:  # Ray itself learns of some losses later
            answers = pool.map(_reached, listed := self._alive())
            alive = [node for node, is_there in zip(listed, answers, strict=True) if is_there]
        total = {key: sum(node["Resources"].get(key, 0.0) for node in alive) for key in ("CPU", "GPU")}
        free = ray.available_resources()
        has = ", ".join(f"{total[key]:g} {key} ({min(total[key], free.get(key, 0.0)):g} free)" for key in total)
        asks = f"{self._cpus:g} CPU" + (f" and {self._gpus:g} GPU" if self._gpus else "")
        alone = any(trials_on(node["Resources"], self._cpus, self._gpus) for node in alive)
        so = "" if alone else ", and none of them has as much: add one, or ask for less"
        ours = f"this search asks for {counted(len(self._described), 'place')}"
        return f"a trial asks for {asks}; the cluster has {counted(len(alive), 'machine')} with {has}{so}; {ours}"

    def call(self, call: Call, unwanted: Callable[[], bool] = lambda: False) -> Answer:
        """Call a function at a place; one that reads the study's folder or its images, in a process of this machine."""
        if call.folder is None:
            return (yield from super().call(call, unwanted))
        if self._here is None:
            logs, limit = self.job.directory / "logs", self.job.config.trial_timeout
            self._here = LocalEngine(self.job.trial, [_device_here()], threads=_threads_here(), logs=logs, limit=limit)
        return (yield from self._here.call(call, unwanted))

    def close(self, grace: float = 0.0) -> list[Message]:
        """End the actors, and leave the cluster."""
        if not self._connected:
            return []
        messages = super().close(grace)
        if self._here is not None:
            self._here.close()
        self._connected = False
        ray.shutdown()
        return messages

    def _ended(self, handle: Any) -> Exception:
        """Return whether an actor ended with its machine, or alone."""
        where = next((one.place for one in (*self._busy.values(), *self._free) if one.handle is handle), None)
        node = self._node_ids[where.name] if where is not None else None
        if where is None:
            return PlaceLost("its machine was lost before it began")
        if not _answers(node):
            return PlaceLost(f"its machine was lost ({where.name})")
        return PlaceCrashed(f"its process ended on {where.name}")

    def _alive(self) -> list[dict[str, Any]]:
        if time.monotonic() - self._nodes[0] > LOOK:
            self._nodes = time.monotonic(), [node for node in ray.nodes() if node["Alive"]]
        return self._nodes[1]


def trials_on(resources: Mapping[str, float], cpus: int, gpus: float) -> int:
    """Return how many trials a machine has room for; a share of a GPU is of one GPU."""
    room = int(resources.get("CPU", 0.0) // cpus)
    return min(room, int(resources.get("GPU", 0.0)) * int(1 / gpus + 1e-9)) if gpus else room


def connect(address: str | None) -> bool:
    """Connect to the cluster at `address`, else to the one that `RAY_ADDRESS` names or that runs on this machine.

    Raises DeviceError where there is none. Ray's own handlers of signals are undone: a search saves at a signal.
    """
    wanted = ray_address(address)
    try:
        if wanted != "auto":  # Ray itself tries for minutes
            host, _, port = wanted.removeprefix("ray://").rpartition(":")
            socket.create_connection((host, int(port)), REACHED).close()
        with _own_signals():
            ray.init(wanted, log_to_driver=False, logging_level="ERROR", configure_logging=False)
    except (ConnectionError, RuntimeError, OSError, ValueError, RayError) as error:
        raise DeviceError(
            "no Ray cluster answers",
            given=f"{wanted}: {str(error).strip().splitlines()[0][:300]}",
            remedy="start one, such as by `ray start --head --node-ip-address=127.0.0.1`, or name it by --ray-address",
        ) from None
    return True


def _end_with(raylet: int) -> None:
    """End this process when its machine's raylet has died, which Ray itself does not always do."""
    while os.getppid() == raylet:
        time.sleep(LOOK)
    os._exit(1)


@contextmanager
def _own_signals() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _answers(node: str | None) -> bool:
    """Say whether a machine's raylet still takes connections."""
    found = next((one for one in ray.nodes() if one["NodeID"] == node), None)
    return found is not None and found["Alive"] and _reached(found)


def _reached(node: Mapping[str, Any]) -> bool:
    try:
        with socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), ANSWERS):
            return True
    except OSError:
        return False


def _device_here() -> str:
    from automl_pt.training.device import choose_device

    return str(choose_device("auto"))


def _threads_here() -> int:
    from automl_pt.training.device import available_cores

    return available_cores()
