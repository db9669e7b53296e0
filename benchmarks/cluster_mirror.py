"""What the mirrored executor copies for each epoch, and which share of the epoch's time that takes.

    python benchmarks/cluster_mirror.py --epochs 3 --images 600 --side 64

A trial of ResNet-18 runs at a place in another process with a disk of its own; a pipe stands for the network, so the
share is that of reading, sending and writing, without a network's own speed. Processor time of both processes is
measured, because other programs may be running; the wall time of the copies is given beside it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
import record

from automl_pt.config import SearchConfig
from automl_pt.data.prepare import prepare
from automl_pt.plugins.manager import load_plugins
from automl_pt.study.executor import mirrored
from automl_pt.study.executor.base import ExecutorJob, TrialSpec
from automl_pt.study.executor.messages import EpochEnded, IteratorEnded, Place, StudyFailed, TrialFailed
from automl_pt.study.executor.mirrored import MirroredEngine
from automl_pt.study.executor.run_files import FolderCopy, write_files
from automl_pt.study.executor.sample_trial import make

TRIAL = "automl_pt.study.executor.trial_run:make_trial"


class Clock:
    """Processor and wall seconds of what is done within."""

    def __init__(self) -> None:
        self.cpu, self.wall = 0.0, 0.0

    def __enter__(self) -> None:
        self._began = time.process_time(), time.monotonic()

    def __exit__(self, *raised: object) -> None:
        cpu, wall = self._began
        self.cpu += time.process_time() - cpu
        self.wall += time.monotonic() - wall


def serve(connection: Connection, folder: str) -> None:
    """Be a place: answer each call, with the processor time of all, and that of finding what has changed."""
    from automl_pt.study.executor.remote_place import RemotePlace

    copying, changes = Clock(), FolderCopy.changes

    def timed(self: FolderCopy) -> dict[str, bytes | None]:
        with copying:
            return changes(self)

    FolderCopy.changes = timed  # type: ignore[method-assign]
    place = RemotePlace(TRIAL, f"{folder}/work", f"{folder}/cache", {}, "cpu", 1)
    while True:
        method, values = connection.recv()
        answer = getattr(place, method)(*values)
        before = time.process_time()
        connection.send((answer, {"cpu": before, "copying": copying.cpu, "copying_wall": copying.wall}))
        copying.cpu += time.process_time() - before


class OtherProcess(MirroredEngine):
    """One place, in another process."""

    slots = 1

    def __init__(self, job: ExecutorJob) -> None:
        super().__init__(job)
        self.receiving, self.there = Clock(), dict[str, float]()

    def open_place(self, avoid: frozenset[str]) -> Any:
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        folder = str(self.job.directory / "place")
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, folder), daemon=True)
        process.start()
        return process, ours

    def located(self, handle: Any) -> Place:
        return Place("cpu", "cpu", 0, "other")

    def ask(self, handle: Any, method: str, *values: Any) -> Any:
        handle[1].send((method, values))
        if method == "keep_pool":
            handle[1].recv()
        return handle[1]

    def answered(self, pending: Sequence[Any], timeout: float) -> Sequence[Any]:
        return [one for one in wait(list(pending), timeout) if isinstance(one, Connection)]

    def answer(self, handle: Any, pending: Any) -> Any:
        with self.receiving:
            found, self.there = pending.recv()
        return found

    def close_place(self, handle: Any) -> None:
        handle[0].kill()

    def shortage(self) -> str:
        return "nothing is missing"


def drawn(folder: Path, count: int, side: int) -> Path:
    """Write drawn images of four classes, and return their folder."""
    from PIL import Image

    random = np.random.default_rng(0)
    for index in range(count):
        path = folder / f"class-{index % 4}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 128, (side, side, 3), dtype=np.uint8) + np.uint8(30 * (index % 4))
        Image.fromarray(pixels).save(path)
    return folder


def measure(folder: Path, epochs: int, images: int, side: int) -> list[dict[str, Any]]:
    """Run one trial there, and return for each epoch what was copied, and what that cost."""
    os.environ["AUTOML_PT_CACHE"] = str(folder / "own-cache")
    settings: dict[str, Any] = {"image_size": side, "pretrained": False, "device": "cpu", "epochs": epochs}
    config = SearchConfig(dataset=str(drawn(folder / "images", images, side)), **settings)
    manifest = folder / "manifest.json"
    prepare(config, load_plugins(), manifest=manifest).pixels("train", side)
    engine = OtherProcess(ExecutorJob(config, TRIAL, make, folder))
    trial = config.trial(backbone="resnet18", lr=0.05, batch_size=32, seed=1)
    writing, rows = Clock(), list[dict[str, Any]]()

    def timed(*given: Any) -> int:
        with writing:
            return write_files(*given)

    mirrored.write_files = timed
    engine.start(TrialSpec(0, trial, folder / "trial", epochs, manifest))
    before = (0, 0.0, 0.0, 0.0)
    while True:
        for message in engine.wait(60):
            match message:
                case EpochEnded(result=result):
                    copying = engine.there["copying"] + writing.cpu + engine.receiving.cpu
                    copying_wall = engine.there["copying_wall"] + writing.wall + engine.receiving.wall
                    now = (engine.bytes_mirrored, copying, copying_wall, engine.there["cpu"])
                    sent, cost, waited, spent = (new - old for new, old in zip(now, before, strict=True))
                    before = now
                    row = {
                        "epoch": result.epoch,
                        "megabytes": round(sent / 1e6, 1),
                        "epoch_cpu_seconds": round(spent, 2),
                    }
                    row |= {"copying_cpu_seconds": round(cost, 3), "share": round(cost / spent, 4)}
                    rows.append(row | {"copying_seconds": round(waited, 2), "epoch_seconds": round(result.seconds, 2)})
                    print(rows[-1], flush=True)
                case IteratorEnded() | TrialFailed() | StudyFailed():
                    engine.close()
                    if not isinstance(message, IteratorEnded):
                        raise SystemExit(str(message))
                    return rows
                case _:
                    pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--side", type=int, default=64)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), given.epochs, given.images, given.side)
    record.write("cluster_mirror", images=given.images, side=given.side, epochs=rows)


if __name__ == "__main__":
    main()
