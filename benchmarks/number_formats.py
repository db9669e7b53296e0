"""Training and evaluating in bf16 against float32 on this CPU, each as a run arranges its network.

    python benchmarks/number_formats.py speed
    python benchmarks/number_formats.py quality FOLDER IMAGES LR BATCH SEED [SEED ...]

`speed`: whole networks on random images, one thread, the ways in turns, CPU seconds, lowest of 4 repeats. Beside the
two: bf16 as PyTorch computes it, without convolutions over small maps as products and without depthwise ones in float32
(`automl_pt/training/cpu/small_maps.py`, `depthwise.py`). "Pays" is what `--precision auto` decides on this machine.
`quality`: ResNet-18 trained at 64 px over 5 epochs, in both formats with the same seed; the lowest validation loss of
each. FOLDER holds {train,val}/CLASS/*, of which the first IMAGES training images of each class are taken.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import record
import torch
from search_rivals import subset
from sides import in_turns
from torch import nn
from torch.nn import functional as F

from automl_pt.backbones.build import build_model
from automl_pt.config import TrainConfig
from automl_pt.data.prepare import prepare
from automl_pt.plugins.manager import load_plugins
from automl_pt.runs import run
from automl_pt.training.cpu.small_maps import use_convolutions
from automl_pt.training.device import has_amx, has_fast_bf16
from automl_pt.training.evaluation import autocast
from automl_pt.training.layout import arrange

RESULTS = record.RESULTS / "number_formats.json"
CPU, LAST = torch.device("cpu"), torch.channels_last
#: network, side, batch
NETWORKS = [
    ("resnet18", 64, 8),
    ("resnet18", 64, 16),
    ("resnet18", 64, 64),
    ("resnet18", 224, 16),
    ("resnet50", 64, 16),
    ("resnet50", 224, 8),
    ("densenet121", 64, 16),
    ("densenet121", 224, 8),
    ("timm/mobilenetv3_large_100", 64, 32),
    ("timm/efficientnet_b0", 64, 16),
    ("timm/efficientnet_b0", 224, 8),
    ("timm/convnext_tiny", 64, 16),
    ("timm/regnety_008", 64, 16),
    ("timm/vit_tiny_patch16_224", 224, 8),
    ("timm/tf_efficientnet_lite0", 96, 16),
]
WAYS = ("fp32", "bf16", "bf16, PyTorch's own")


def compare(name: str, side: int, batch: int) -> dict[str, Any]:
    works = {way: _works(name, side, batch, way) for way in WAYS}
    row: dict[str, Any] = {"network": name, "side": side, "batch": batch}
    for place, what in enumerate(("training", "evaluation")):
        times = in_turns(CPU, {way: work[place] for way, work in works.items()}, 4)
        seconds = {way: found["seconds"] for way, found in times.items()}
        row[what] = {way: round(seconds["fp32"] / seconds[way], 2) for way in WAYS[1:]}
        row[f"{what}, ms an image"] = {way: round(1000 * one / batch, 3) for way, one in seconds.items()}
    return row


def _works(name: str, side: int, batch: int, way: str) -> tuple[Callable[[], object], Callable[[], object]]:
    precision: Any = way[:4]
    model: nn.Module = arrange(build_model(load_plugins().backbone(name), 6, side, seed=1), CPU, precision)
    if way == WAYS[2]:
        use_convolutions(model)
    images, labels = torch.randn(batch, 3, side, side).contiguous(memory_format=LAST), torch.arange(batch) % 6

    def step() -> None:
        model.train()
        model.zero_grad()
        with autocast(CPU, precision):
            loss = F.cross_entropy(model(images).float(), labels)
        loss.backward()  # type: ignore[no-untyped-call]

    def score() -> None:
        model.eval()
        with torch.inference_mode(), autocast(CPU, precision):
            model(images)

    return step, score


def quality(folder: Path, images: int, lr: float, batch_size: int, seeds: list[int]) -> Iterator[dict[str, Any]]:
    plugins = load_plugins()
    with tempfile.TemporaryDirectory(dir=folder.resolve().parent) as data, tempfile.TemporaryDirectory() as place:
        os.environ["AUTOML_PT_CACHE"] = f"{place}/cache"
        dataset = str(subset(folder, images, Path(data)))
        shared: dict[str, Any] = {
            "backbone": "resnet18",
            "pretrained": False,
            "image_size": 64,
            "epochs": 5,
            "threads": 1,
            "device": "cpu",
        }
        for seed in seeds:
            losses = {}
            for precision in WAYS[:2]:
                config = TrainConfig(
                    dataset=dataset, lr=lr, batch_size=batch_size, seed=seed, precision=precision, **shared
                )
                output = Path(place, f"{seed} {precision}")
                results = run.execute(config, output, data=prepare(config, plugins), plugins=plugins)
                losses[precision] = round(min(result.val_loss for result in results), 4)
            yield {"set": folder.name, "images": images, "lr": lr, "batch": batch_size, "seed": seed, **losses}


def main() -> None:
    torch.set_num_threads(1)
    what, *given = sys.argv[1:]
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    speeds, pairs = kept.get("speed", []), kept.get("quality", [])
    if what == "speed":
        speeds, found = [], (compare(*network) for network in NETWORKS)
    else:
        folder, images, lr, batch, *seeds = given
        found = quality(Path(folder), int(images), float(lr), int(batch), [int(seed) for seed in seeds])
    for row in found:
        (speeds if what == "speed" else pairs).append(row)
        print(row, flush=True)
        record.write("number_formats", amx=has_amx(), pays=has_fast_bf16(), speed=speeds, quality=pairs)


if __name__ == "__main__":
    main()
