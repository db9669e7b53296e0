"""What each piece of the trainer's own code saves on this CPU: a line for each piece, network, side and start.

    python benchmarks/own_kernels.py [--quick] [--native] [NETWORK ...]

One thread, random images, CPU seconds of whole training steps, the ways in turns, lowest of the repeats. `none` has
PyTorch's own convolutions and optimiser in the same memory layout and number format; `sgd`, `small_maps` and
`depthwise` each add one piece; `all` is what a run has. `depthwise` acts in bf16 alone. From scratch the whole network
trains with batch statistics; pretrained means that batch normalisation keeps its statistics, as a run on pretrained
weights does. `update_ms` is the optimiser's part of a step by itself, PyTorch's and ours. With `--native` only the
number format that a run chooses on this CPU is measured, else float32 as well.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import record
import torch
from sides import in_turns
from torch import nn
from torch.nn import functional as F

from automl_pt.backbones.build import build_model
from automl_pt.plugins.manager import load_plugins
from automl_pt.training.batch_norm import train_mode
from automl_pt.training.cpu.depthwise import use_float32_where_depthwise
from automl_pt.training.cpu.small_maps import use_matrix_products
from automl_pt.training.device import choose_precision
from automl_pt.training.evaluation import autocast
from automl_pt.training.sgd import SGD

CPU = torch.device("cpu")
#: network, side, batch
CASES = [
    ("resnet18", 64, 16),
    ("resnet18", 224, 8),
    ("densenet121", 64, 16),
    ("timm/efficientnet_b0", 64, 16),
    ("timm/efficientnet_b0", 224, 4),
    ("timm/mobilenetv3_large_100", 96, 16),
]
WAYS = ("none", "sgd", "small_maps", "depthwise", "all")
REPEATS, UPDATES = 3, 8


def step_of(
    name: str, side: int, batch: int, precision: Any, way: str, *, pretrained: bool
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return a training step, and the optimiser's part of it for gradients that are there."""
    model: nn.Module = build_model(load_plugins().backbone(name), 6, side, seed=1)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in PyTorch's annotations
    if way in ("small_maps", "all"):
        model = use_matrix_products(model)
    if way in ("depthwise", "all") and precision == "bf16":
        model = use_float32_where_depthwise(model)
    parameters, rates = list(model.parameters()), {"lr": 0.001, "momentum": 0.9, "weight_decay": 1e-4}
    own = way in ("sgd", "all")
    optimizer: Any = (
        SGD(parameters, **rates) if own else torch.optim.SGD(parameters, **rates, nesterov=True, fused=True)
    )
    images = torch.randn(batch, 3, side, side).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch) % 6
    train_mode(model, keep_statistics=pretrained)

    def step() -> None:
        optimizer.zero_grad()
        with autocast(CPU, precision):
            logits = model(images)
        F.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def update() -> None:
        if parameters[0].grad is None:
            step()
        optimizer.step()

    return step, update


def main() -> None:
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    quick, native = "--quick" in sys.argv, choose_precision("auto", CPU)
    names = [word for word in sys.argv[1:] if not word.startswith("--")]
    for precision in dict.fromkeys([native] if "--native" in sys.argv else ["fp32", native]):
        for name, side, batch in [case for case in CASES if not names or case[0] in names]:
            for pretrained in (False, True):
                ways = [way for way in WAYS if way != "depthwise" or precision == "bf16"]
                made = {way: step_of(name, side, batch, precision, way, pretrained=pretrained) for way in ways}
                works = {way: step for way, (step, _) in made.items()}
                times = {way: one["seconds"] for way, one in in_turns(CPU, works, 1 if quick else REPEATS).items()}
                updates = {way: made[way][1] for way in ("none", "sgd")}
                update = in_turns(CPU, updates, UPDATES)
                row: dict[str, Any] = {"network": name, "side": side, "batch": batch, "precision": precision}
                row |= {"start": "pretrained" if pretrained else "scratch"}
                row |= {way: round(times["none"] / times[way], 2) for way in ways[1:]}
                row |= {"update_ms": [round(1000 * one["seconds"], 1) for one in update.values()]}
                rows.append(row | {"ms_without": round(1000 * times["none"], 1)})
                print(rows[-1], flush=True)
                record.write("own_kernels", rows=rows)


if __name__ == "__main__":
    main()
