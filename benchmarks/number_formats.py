"""Training and evaluating in bf16 against float32 on this CPU, each as a run arranges its network.

    python benchmarks/number_formats.py

Whole networks on random images, one thread, the ways in turns, CPU seconds, lowest of 4 repeats. Beside the two: bf16
as PyTorch computes it, without convolutions over small maps as products and without depthwise ones in float32
(`automl_pt/training/small_maps.py`, `depthwise.py`). "Pays" is what `--precision auto` decides on this machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import record
import torch
from sides import in_turns
from torch import nn
from torch.nn import functional as F

from automl_pt.build import build_model
from automl_pt.plugins import load_plugins
from automl_pt.training.device import has_amx, has_fast_bf16
from automl_pt.training.evaluation import autocast
from automl_pt.training.layout import arrange
from automl_pt.training.small_maps import use_convolutions

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


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for network in NETWORKS:
        rows.append(compare(*network))
        print(rows[-1], flush=True)
        record.write("number_formats", amx=has_amx(), pays=has_fast_bf16(), rows=rows)


if __name__ == "__main__":
    main()
