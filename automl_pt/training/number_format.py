"""Whether the short number format is the faster one for a network on this CPU: timed once, and remembered.

A CPU that multiplies matrices fast in bf16 may still be slower with it, because depthwise and other grouped
convolutions gain nothing from it. So a few training steps of a network that has some are timed in both formats. The
answer is kept in the cache folder, because a run that resumes must compute in the format in which it began.
"""

from __future__ import annotations

import copy
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from automl_pt.backbones.random_state import kept_random_state
from automl_pt.core.errors import OutputError
from automl_pt.core.files import cache_folder, make_folder, read_json, write_json
from automl_pt.core.locks import locked
from automl_pt.core.out_of_memory import is_out_of_memory
from automl_pt.training.device import NumberFormat
from automl_pt.training.evaluation import autocast
from automl_pt.training.layout import arrange

#: images of a timed step, and steps in each format, of which the fastest counts; the first one prepares what is kept
IMAGES, STEPS = 8, 3
#: share of the short format's time below which float32 is taken: nearer than that the load of the machine decides
CLEARLY = 0.9
FORMATS: tuple[NumberFormat, ...] = ("fp32", "bf16", "fp16")


def faster_format(
    model: nn.Module,
    name: str,
    image_size: int,
    device: torch.device,
    asked: str,
    precision: NumberFormat,
    channels: int = 3,
) -> NumberFormat:
    """Return the number format in which `model`, on the CPU and trainable as the run trains it, takes steps faster.

    `precision` is what the device suggests. It is returned untimed where the settings name a format, the device is no
    CPU, no convolution is grouped, or the answer cannot be kept. The model is left as it is.
    """
    if asked != "auto" or precision == "fp32" or device.type != "cpu" or not _has_groups(model):
        return precision
    place = f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    key = f"{place}: {name}, {trained} parameters, {image_size} px, {precision}"
    shape = (IMAGES, channels, image_size, image_size)
    found = remembered(cache_folder() / "number-formats.json", key, lambda: _timed(model, shape, precision))
    return found or precision


def remembered(path: Path, key: str, measure: Callable[[], NumberFormat]) -> NumberFormat | None:
    """Return the format kept in the file under `key`, measured where there is none; None where it cannot be kept."""
    known = _read(path).get(key)
    if known in FORMATS:
        return known  # type: ignore[no-any-return]  # one of the three
    try:
        make_folder(path.parent)
        with locked(path.with_suffix(".lock")):  # two processes that time at once would disturb each other
            kept = _read(path)
            if kept.get(key) not in FORMATS:
                write_json(path, {**kept, key: measure()})
            return _read(path).get(key)
    except OutputError:
        return None


def _read(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except (OSError, ValueError):  # absent, or damaged: it can be measured again
        return {}
    return found if isinstance(found, dict) else {}


def _timed(model: nn.Module, shape: Sequence[int], precision: NumberFormat) -> NumberFormat:
    seconds: dict[NumberFormat, float] = {}
    for one in ("fp32", precision):
        try:
            seconds[one] = _step_seconds(copy.deepcopy(model), shape, one)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return precision
    return "fp32" if seconds["fp32"] < CLEARLY * seconds[precision] else precision


def _step_seconds(model: nn.Module, shape: Sequence[int], precision: NumberFormat) -> float:
    device, found = torch.device("cpu"), []
    with kept_random_state():
        model = arrange(model, device, precision).train()
        images = torch.randn(*shape).contiguous(memory_format=torch.channels_last)
        labels = torch.zeros(IMAGES, dtype=torch.int64)
        for _ in range(STEPS):
            started = time.perf_counter()
            with autocast(device, precision):
                output = model(images)
            logits = getattr(output, "logits", output)
            F.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]  # PyTorch's own
            found.append(time.perf_counter() - started)
    return min(found[1:])


def _has_groups(model: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d) and module.groups > 1 for module in model.modules())


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the name of the processor."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
