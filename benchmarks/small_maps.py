"""The layout in memory, and convolutions over small maps as matrix products, against PyTorch's own; on a CPU, float32.

    python benchmarks/small_maps.py [layers | networks]

`layers`: one convolution, forward and both gradients, in four ways: PyTorch's and the matrix product, each on plain and
on channels_last memory. `networks`: whole networks as PyTorch builds them, the same in channels_last memory, and as a
run arranges them. One thread, random images, the ways in turns, CPU seconds, lowest of the repeats.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import record
import torch
from sides import in_turns
from torch import Tensor, nn
from torch.nn import functional as F

from automl_pt.backbones.build import build_model
from automl_pt.plugins.manager import load_plugins
from automl_pt.training.cpu.small_maps import _Product
from automl_pt.training.layout import arrange

CPU, LAST = torch.device("cpu"), torch.channels_last
#: channels in and out, kernel, stride, side of the images
LAYERS = [
    (512, 512, 3, 1, 1),
    (512, 512, 3, 1, 2),
    (256, 512, 3, 2, 4),
    (512, 2048, 1, 1, 2),
    (1024, 128, 1, 1, 2),
    (128, 32, 3, 1, 2),
    (512, 512, 3, 1, 3),
    (256, 256, 3, 1, 4),
    (512, 512, 3, 1, 4),
    (128, 128, 3, 1, 8),
    (512, 512, 3, 1, 7),
    (256, 512, 3, 2, 14),
]
#: network, side, batch
NETWORKS = [
    ("resnet18", 32, 64),
    ("resnet18", 64, 8),
    ("resnet18", 64, 32),
    ("resnet18", 96, 32),
    ("resnet18", 128, 16),
    ("resnet18", 224, 8),
    ("resnet34", 64, 32),
    ("resnet50", 64, 32),
    ("resnet50", 224, 8),
    ("densenet121", 64, 32),
    ("densenet121", 224, 8),
    ("timm/mobilenetv3_large_100", 64, 32),
    ("timm/efficientnet_b0", 64, 32),
    ("timm/efficientnet_b0", 224, 8),
    ("timm/convnext_tiny", 64, 32),
]


def layers() -> Iterator[dict[str, Any]]:
    for wide_in, wide_out, kernel, stride, side in LAYERS:
        for batch in (8, 32):
            ways: dict[str, Callable[[], object]] = {}
            for layout in ("contiguous", "channels_last"):
                for how in ("convolution", "product"):
                    ways[f"{how}, {layout}"] = _layer(wide_in, wide_out, kernel, stride, side, batch, how, layout)
            times = {name: found["seconds"] for name, found in in_turns(CPU, ways, 5).items()}
            product = times["product, channels_last"]
            shape = f"{wide_in} -> {wide_out}, {kernel}x{kernel} / {stride}"
            yield {
                "layer": shape,
                "map": (side - 1) // stride + 1,
                "batch": batch,
                "ms_an_image": {name: round(1000 * seconds / batch, 3) for name, seconds in times.items()},
                "gain": {
                    name: round(times[f"convolution, {name}"] / product, 2) for name in ("contiguous", "channels_last")
                },
            }


def _layer(
    wide_in: int, wide_out: int, kernel: int, stride: int, side: int, batch: int, how: str, layout: str
) -> Callable[[], object]:
    images, weight = torch.randn(batch, wide_in, side, side), torch.randn(wide_out, wide_in, kernel, kernel)
    if layout == "channels_last":
        images, weight = images.contiguous(memory_format=LAST), weight.contiguous(memory_format=LAST)
    images.requires_grad_()
    weight.requires_grad_()
    pad = kernel // 2

    def convolve() -> Tensor:
        if how == "product":
            product: Tensor = _Product.apply(images, weight, (stride, stride), (pad, pad))
            return product
        return F.conv2d(images, weight, None, stride, pad)

    gradient = torch.randn_like(convolve())
    return lambda: torch.autograd.grad(convolve(), (images, weight), gradient)


def networks() -> Iterator[dict[str, Any]]:
    for name, side, batch in NETWORKS:
        training: dict[str, Callable[[], object]] = {}
        scoring: dict[str, Callable[[], object]] = {}
        for way in ("contiguous", "channels_last", "arranged"):
            training[way], scoring[way] = _works(name, side, batch, way)
        found = {"training": in_turns(CPU, training, 4), "evaluation": in_turns(CPU, scoring, 4)}
        yield {
            "network": name,
            "side": side,
            "batch": batch,
            "ms_an_image": {
                what: {way: round(1000 * one["seconds"] / batch, 3) for way, one in times.items()}
                for what, times in found.items()
            },
            "gain": {
                what: round(times["contiguous"]["seconds"] / times["arranged"]["seconds"], 2)
                for what, times in found.items()
            },
        }


def _works(name: str, side: int, batch: int, way: str) -> tuple[Callable[[], object], Callable[[], object]]:
    model: nn.Module = build_model(load_plugins().backbone(name), 6, side, seed=1)
    images, labels = torch.randn(batch, 3, side, side), torch.arange(batch) % 6
    if way == "channels_last":
        model.to(memory_format=LAST)  # type: ignore[call-overload]  # not in PyTorch's annotations
    if way == "arranged":
        model = arrange(model, CPU, "fp32")
    if way != "contiguous":
        images = images.contiguous(memory_format=LAST)

    def step() -> None:
        model.train()
        model.zero_grad()
        F.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]

    def score() -> None:
        model.eval()
        with torch.inference_mode():
            model(images)

    return step, score


def main() -> None:
    torch.set_num_threads(1)
    rows: dict[str, list[dict[str, Any]]] = {}
    for work in (layers, networks):
        if work.__name__ in (sys.argv[1:] or ["layers", "networks"]):
            rows[work.__name__] = []
            for found in work():
                rows[work.__name__].append(found)
                print({key: value for key, value in found.items() if key != "ms_an_image"}, flush=True)
                record.write("small_maps", **rows)


if __name__ == "__main__":
    main()
