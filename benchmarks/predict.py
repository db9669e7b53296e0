"""`predict` against a plain DataLoader script, same model, same JPEGs: whole processes, interleaved; peak memory.

python benchmarks/predict.py FOLDER [--images 5000] [--repeats 3]

The model is a ResNet-18 for 64 px with random weights. The plain script is what one would write with torchvision:
Image.open, Resize, CenterCrop, ToTensor, Normalize, DataLoader with a worker per core, softmax, one CSV row an image.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import record

SIZE = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dry", action="store_true", help="Write no results file.")
    parser.add_argument("--plain", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plain:
        plain(*map(Path, arguments.plain))
        return
    files = sorted(arguments.folder.rglob("*.jpg"))
    paths = [str(files[index % len(files)].resolve()) for index in range(arguments.images)]
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), paths, arguments.repeats, dry=arguments.dry)


def compare(folder: Path, paths: list[str], repeats: int, *, dry: bool) -> None:
    save(folder / "model")
    runs: dict[str, list[dict[str, float]]] = {"predict": [], "plain": [], "predict, a tenth": []}
    # links, so that every path is another: a path given twice is predicted once
    links = [folder / "images" / f"{index:05}.jpg" for index in range(len(paths))]
    (folder / "images").mkdir()
    for link, path in zip(links, paths, strict=True):
        os.link(path, link) if os.stat(path).st_dev == os.stat(folder).st_dev else link.write_bytes(
            Path(path).read_bytes()
        )
    for name, count in (("all", len(links)), ("tenth", len(links) // 10)):
        (folder / name).write_text("\n".join(map(str, links[:count])))
    for _ in range(repeats):
        for side in runs:
            listed = folder / ("tenth" if "tenth" in side else "all")
            runs[side].append(timed(side, folder, listed))
    agree = same_classes(folder)
    for side, found in runs.items():
        median = record.summary([one["wall"] for one in found])["median"]
        images = len(paths) // (10 if "tenth" in side else 1)
        peak = max(one["peak_mib"] for one in found)
        used = record.summary([one["cpu"] for one in found])["median"]
        print(f"{side:18} {images / median:7.0f} images/s   {median:6.2f} s, {used:6.2f} of CPU   peak {peak:.0f} MiB")
    print(f"same class for {agree:.2%} of the images")
    if not dry:
        print(record.write("predict", images=len(paths), runs=runs, same_class=agree))


def timed(side: str, folder: Path, listed: Path) -> dict[str, float]:
    output = folder / f"{side.split(',')[0]}.csv"
    if side == "plain":
        words = [__file__, ".", "--plain", str(folder / "model"), str(listed), str(output)]
    else:
        words = ["-m", "automl_pt", "predict", str(folder / "model"), "-", "-o", str(output), "--force", "--quiet"]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], stdin=open(listed))  # noqa: SIM115
    peak = 0
    while process.poll() is None:
        peak = max(peak, resident(process.pid))
        time.sleep(0.05)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert process.returncode == 0
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": wall, "cpu": cpu, "peak_mib": peak / 2**20}


def resident(pid: int) -> int:
    """Return the proportional resident bytes of a process and its children."""
    total = 0
    for child in [pid, *map(int, children(pid))]:
        try:
            text = Path(f"/proc/{child}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))
    return total


def children(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []


def save(directory: Path) -> None:
    from automl_pt.backbones.build import build_model
    from automl_pt.images.preprocessing import Preprocessing
    from automl_pt.model.load import ModelInfo, save_model
    from automl_pt.plugins.manager import load_plugins

    backbone = load_plugins().backbone("resnet18")
    network = build_model(backbone, 6, SIZE, seed=1)
    preprocessing = Preprocessing(SIZE, backbone.mean, backbone.std)
    state: dict[str, Any] = dict(network.state_dict())
    empty: dict[str, Any] = {}
    classes = tuple("abcdef")
    save_model(directory, state, ModelInfo("resnet18", classes, preprocessing, empty, empty, [], empty, empty, []))


def plain(model: Path, listed: Path, output: Path) -> None:
    import torch
    from PIL import Image
    from safetensors.torch import load_file
    from torch.utils.data import DataLoader, Dataset
    from torchvision import models, transforms

    class Images(Dataset[Any]):
        def __init__(self, paths: list[str]) -> None:
            self.paths = paths
            self.transform = transforms.Compose(
                [
                    transforms.Resize(SIZE),
                    transforms.CenterCrop(SIZE),
                    transforms.ToTensor(),
                    transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
                ]
            )

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, index: int) -> Any:
            return self.transform(Image.open(self.paths[index]).convert("RGB"))

    network = models.resnet18(num_classes=6)
    network.load_state_dict(load_file(next(model.glob("*.safetensors"))))
    network.eval()
    paths = listed.read_text().splitlines()
    classes = "abcdef"
    with open(output, "w", newline="") as stream, torch.inference_mode():
        rows = csv.writer(stream)
        rows.writerow(["path", "class", "probability", *classes])
        place = 0
        for images in DataLoader(Images(paths), batch_size=64, num_workers=os.cpu_count() or 1):
            for values in torch.softmax(network(images), 1).tolist():
                best = max(range(6), key=values.__getitem__)
                rows.writerow([paths[place], classes[best], values[best], *values])
                place += 1


def same_classes(folder: Path) -> float:
    with open(folder / "plain.csv", newline="") as stream:
        wanted = {row["path"]: row["class"] for row in csv.DictReader(stream)}
    with open(folder / "predict.csv", newline="") as stream:
        found = {row["path"]: row["class"] for row in csv.DictReader(stream)}
    return sum(wanted[path] == name for path, name in found.items()) / len(found)


if __name__ == "__main__":
    main()
