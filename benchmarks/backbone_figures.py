"""Measure parameters, GFLOPs and batch normalisation of every built-in backbone, on torch's meta device.

python benchmarks/backbone_figures.py          writes automl_pt/builtin/figures.json, keyed by the libraries' versions

Parameters are those of the network with its published head of 1000 classes. GFLOPs are of one image at the network's
native size, as torch.utils.flop_counter counts them: a multiplication with its addition is two. No pixel is computed
and no weight is read; a model that cannot be built or run on the meta device is left out and named.
"""

from __future__ import annotations

import logging
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from automl_pt.builtin.torchvision_backbones import DENSENETS, RESNETS
from automl_pt.core.files import atomic_write, read_json, to_json

TARGET = Path(__file__).parents[1] / "automl_pt" / "builtin" / "figures.json"
CLASSES = 1000


def measured(model: nn.Module, image_size: int) -> list[Any]:
    """Return [parameters, GFLOPs, whether it normalises by batch] of a model on the meta device."""
    # with gradients, as the counter's own tracker of modules fails on some models without
    with FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, 3, image_size, image_size, device="meta"))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    norm = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    return [parameters, round(counter.get_total_flops() / 1e9, 3), norm]


def family(key: str, name: str) -> str:
    """Return the module of its library that a network comes from."""
    from timm.models import model_entrypoint

    if key.startswith("timm/"):
        return str(model_entrypoint(name).__module__).rpartition(".")[2]
    return "densenet" if name in DENSENETS else "resnet"


def torchvision_models() -> dict[str, tuple[str, int]]:
    """Return the network's name and size by key."""
    return {f"{name}@224": (name, 224) for name in (*RESNETS, *DENSENETS)}


def timm_models() -> dict[str, tuple[str, int]]:
    """Return each architecture once for each native size that one of its tags has, by key."""
    from automl_pt.builtin.timm_backbones import PREFIX, _records

    pairs = {(name.partition(".")[0], record["image_size"]) for name, record in _records().items()}
    return {f"{PREFIX}{name}@{size}": (name, size) for name, size in sorted(pairs)}


def build(key: str, name: str, image_size: int) -> nn.Module:
    """Build on the meta device, told its size where that differs from the architecture's own."""
    import timm
    from torchvision.models import get_model

    with torch.device("meta"):
        if not key.startswith("timm/"):
            return get_model(name, weights=None, num_classes=CLASSES)
        model: nn.Module = timm.create_model(name, num_classes=CLASSES)
        if model.default_cfg["input_size"][-1] != image_size and hasattr(model, "set_input_size"):
            model.set_input_size(img_size=(image_size, image_size))
        return model


def main() -> None:
    """Measure what the table does not hold yet, and write it."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    versions = {name: version(name) for name in ("timm", "torchvision")}
    table = read_json(TARGET) if TARGET.exists() else {}
    figures = table.get("figures", {}) if table.get("versions") == versions else {}
    wanted, failed, began = torchvision_models() | timm_models(), {}, time.monotonic()
    for number, (key, (name, size)) in enumerate(wanted.items()):
        if key not in figures:
            try:
                figures[key] = [*measured(build(key, name, size), size), family(key, name)]
            except Exception as error:  # whatever a network says of the meta device: it is named below
                failed[key] = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
        if number % 100 == 99:
            save(versions, figures)
            print(f"{number + 1} of {len(wanted)}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    save(versions, {key: figures[key] for key in wanted if key in figures})
    for key, reason in failed.items():
        print(f"left out: {key}: {reason}")
    print(f"{len(figures)} measured, {len(failed)} left out, in {time.monotonic() - began:.0f} s")


def save(versions: dict[str, str], figures: dict[str, list[Any]]) -> None:
    """Write one line for each backbone, so that a new version shows what changed."""
    lines = ",\n".join(f"  {to_json(key)}: {to_json(values)}" for key, values in sorted(figures.items()))
    text = f'{{\n"versions": {to_json(versions)},\n"figures": {{\n{lines}\n}}\n}}\n'
    atomic_write(TARGET, text)


if __name__ == "__main__":
    main()
