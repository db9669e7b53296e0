"""The input side in figures: building the cache, batches from it, a second search, waiting, memory, `check`, a GPU.

    python benchmarks/input_pipeline.py DATA [ROW ...]      # DATA: a folder of photos, {train,val}/CLASS/*

Both sides of a comparison run in turns in this one process, on the same images; files are read once before, so that
neither side waits for the disk. Each row is also a name that may be given to run it alone; rows run before are kept in
results/input_pipeline.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from torch.utils.data import DataLoader, Subset

from automl_pt.config import TrainConfig
from automl_pt.core.cores import available_cores
from automl_pt.core.files import sha256_file
from automl_pt.data.cache.cache import Cache
from automl_pt.data.hashes import array_digest
from automl_pt.data.loader import Loader
from automl_pt.data.pixels import Originals, Pixels
from automl_pt.data.prepare import Data, prepare
from automl_pt.dataset import Hints
from automl_pt.plugins.manager import load_plugins

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CPU = torch.device("cpu")
REPEATS = 5


def folder(data: Path, transforms: Sequence[Any], count: int) -> Any:
    """Return `count` images of an ImageFolder, spread over the classes."""
    from torchvision import transforms as T
    from torchvision.datasets import ImageFolder

    whole = ImageFolder(str(data / "train"), T.Compose(list(transforms)))
    return Subset(whole, np.linspace(0, len(whole) - 1, min(count, len(whole))).astype(int).tolist())


def cpu_seconds() -> float:
    """Return the CPU time of this process and of the children that have ended."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, kinds))


def rate(count: int, work: Callable[[], object]) -> tuple[float, float]:
    """Return images per second of wall time, and per second of CPU time, which other work on the machine bends less."""
    began, cpu = time.perf_counter(), cpu_seconds()
    work()
    return count / (time.perf_counter() - began), count / max(cpu_seconds() - cpu, 1e-9)


def consume(batches: Any) -> None:
    for _ in batches:
        pass


def compared(sides: dict[str, Callable[[], tuple[float, float]]]) -> dict[str, Any]:
    """Run the sides in turns; tell the median, range and every repeat of each, and the first over the best other."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(REPEATS):
        for name, side in sides.items():
            found[name].append(side())
    figures: dict[str, Any] = {}
    for place, unit in enumerate(("second", "cpu_second")):
        table = {name: record.summary([pair[place] for pair in pairs]) for name, pairs in found.items()}
        ours, *others = (side["median"] for side in table.values())
        figures |= {f"images_per_{unit}": table, f"times_better_per_{unit}": ours / max(others)}
    return figures


def build(data: Path) -> dict[str, Any]:
    """Images a second: decode and resize all, ours into a cache on disk, theirs into batches of a DataLoader."""
    from torchvision import transforms as T

    figures = {}
    for side, count in ((64, 1500), (224, 1000)):
        images = folder(data, [T.Resize(side), T.CenterCrop(side), T.PILToTensor()], count)
        files = [Path(images.dataset.samples[index][0]) for index in images.indices]
        digests = [sha256_file(path) for path in files]
        originals = Originals(files, list(map(str, files)), {digest: at for at, digest in enumerate(digests)})

        def ours(
            originals: Originals = originals, digests: list[str] = digests, side: int = side
        ) -> tuple[float, float]:
            with tempfile.TemporaryDirectory() as place:
                cache = Cache(Path(place), threads=available_cores())
                speed = rate(len(digests), lambda: cache.images(originals, digests, side, unreadable={}))
            assert cache.decoded == len(set(digests))
            return speed

        def theirs(workers: int, images: Any = images) -> tuple[float, float]:
            return rate(len(images), lambda: consume(DataLoader(images, 64, num_workers=workers)))

        sides = {f"ImageFolder, {n} workers": (lambda n=n: theirs(n)) for n in (0, 2)}
        figures[str(side)] = compared({"cache": ours, **sides})
    return figures


def batches(data: Path) -> dict[str, Any]:
    """Images a second of an epoch with flip and crop."""
    from torchvision import transforms as T

    figures = {}
    for side, count in ((64, 500), (224, 300)):
        steps = [T.Resize(side), T.CenterCrop(side), T.RandomCrop(side, side // 8, padding_mode="reflect")]
        images = folder(data, [*steps, T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize(MEAN, STD)], count)
        pixels = prepared(data, side).pixels("train", side)
        loader = our_loader(pixels, CPU)
        epochs = iter(range(1, 1000))

        def ours(loader: Loader = loader, epochs: Iterator[int] = epochs) -> tuple[float, float]:
            return rate(len(loader.labels), lambda: consume(loader.epoch(next(epochs))))

        def theirs(workers: int, images: Any = images) -> tuple[float, float]:
            return rate(len(images), lambda: consume(DataLoader(images, 64, shuffle=True, num_workers=workers)))

        ours()
        sides = {f"ImageFolder, {n} workers": (lambda n=n: theirs(n)) for n in (0, 1, 2)}
        figures[str(side)] = compared({"cache": ours, **sides})
    return figures


def again(data: Path) -> dict[str, Any]:
    """Images decoded by a first and by a second study on the same data, and the seconds until both splits are ready."""
    figures = {}
    with tempfile.TemporaryDirectory() as place:
        for study in ("first", "second"):
            began = time.perf_counter()
            found = prepared(data, 64, manifest=Path(place) / study, cache_dir=place)
            for split in ("train", "val"):
                found.pixels(split, 64)
            hashed = found.inventory.hashes.read_files
            seconds = time.perf_counter() - began
            figures[study] = {"decoded": found.decoded, "hashed": hashed, "seconds": seconds}
    return figures


def wait(data: Path) -> dict[str, Any]:
    """The share of a 5-epoch run of ResNet-18 at 64 px spent waiting for batches, as each epoch's result tells it."""
    from automl_pt.runs.run import train

    with tempfile.TemporaryDirectory() as place:
        settings = {"backbone": "resnet18", "pretrained": False, "image_size": 64, "batch_size": 32, "patience": 5}
        results = list(train(str(data), output=place, **settings))
    return {"data_wait": [result.data_wait for result in results], "goal": 0.02}


class Generated(Sequence[Any]):
    """Images of noise, made when they are asked for."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Any) -> Any:
        return np.random.default_rng(index).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def memory(_: Path) -> dict[str, Any]:
    """Peak resident memory of a process that hashes N generated images and builds their cache at 64 px."""
    command = [sys.executable, __file__, "unused", "--peak"]
    peaks = {count: json.loads(subprocess.check_output([*command, str(count)])) for count in (1_000, 10_000, 100_000)}
    first, last = peaks[1_000]["peak"], peaks[100_000]["peak"]
    return {"bytes": peaks, "growth_per_image": (last - first) / 99_000, "pixels_per_image": 3 * 64 * 64}


def peak_memory() -> int:
    """Return this process's highest resident size in bytes; `getrusage` may tell the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def peak(count: int) -> None:
    images = Generated(count)
    digests = [array_digest(images[index]) for index in range(count)]
    originals = Originals(images, ["noise"] * count, {digest: at for at, digest in enumerate(digests)})
    before = peak_memory()
    with tempfile.TemporaryDirectory() as place:
        began = time.perf_counter()
        Cache(Path(place), threads=available_cores()).images(originals, digests, 64, unreadable={})
        seconds = time.perf_counter() - began
    after = peak_memory()
    print(json.dumps({"peak": after, "before_the_build": before, "seconds": seconds}))


def check(data: Path) -> dict[str, Any]:
    """Seconds of `automl-pt check`, as a process of its own, the first and the second time."""
    command = [sys.executable, "-m", "automl_pt", "check", "--json", str(data)]
    seconds: list[tuple[float, float]] = []
    with record.bytecode() as environment:
        for _ in range(2):  # the first round compiles what is imported, and does not count
            with tempfile.TemporaryDirectory() as place:
                seconds = [timed_process(command, {**environment, "AUTOML_PT_CACHE": place}) for _ in range(3)]
    (wall, cpu), (later_wall, later_cpu) = seconds[:2]
    return {"wall_and_cpu": seconds, "share_of_wall": later_wall / wall, "share_of_cpu": later_cpu / cpu}


def timed_process(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Return the wall and CPU seconds of a process."""
    began, cpu = time.perf_counter(), cpu_seconds()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False)
    return time.perf_counter() - began, cpu_seconds() - cpu


def prepared(data: Path, side: int, manifest: Path | None = None, cache_dir: str | None = None) -> Data:
    config = TrainConfig(dataset=str(data), image_size=side, cache_dir=cache_dir)
    return prepare(config, load_plugins(), manifest=manifest)


def our_loader(pixels: Pixels, device: torch.device, *, batch_size: int = 64, channels_last: bool = False) -> Loader:
    return Loader(
        pixels,
        batch_size=batch_size,
        mean=MEAN,
        std=STD,
        seed=1,
        device=device,
        hints=Hints(),
        augmented_epochs=99,
        shuffle=True,
        channels_last=channels_last,
    )


ROWS = {row.__name__: row for row in (build, batches, again, wait, memory, check)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.peak:
        return peak(arguments.peak)
    path = record.RESULTS / "input_pipeline.json"
    figures = json.loads(path.read_text())["figures"] if path.exists() else {}
    for name in arguments.rows or ROWS:
        load = os.getloadavg()[0]
        figures[name] = {
            "load_average_before": load,
            "commit": record.surroundings()["commit"],
            **ROWS[name](arguments.data),
        }
        record.write("input_pipeline", data=arguments.data.name, figures=figures)
        print(name, json.dumps(shown(figures[name]), indent=1), flush=True)
    return None


def shown(figures: Any) -> Any:
    """Round for reading, and leave single repeats out."""
    if isinstance(figures, dict):
        return {key: shown(value) for key, value in figures.items() if key != "all"}
    if isinstance(figures, list):
        return [shown(value) for value in figures]
    return float(f"{figures:.4g}") if isinstance(figures, float) else figures


if __name__ == "__main__":
    main()
