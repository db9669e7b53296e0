"""A rehearsal: a few images through a new network before the first epoch, on the run's device and in its format."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automl_pt.backbones.network_contract import fails, require_logits, require_trainable, take_logits
from automl_pt.backbones.random_state import kept_random_state
from automl_pt.core.errors import ConfigError, DeviceLostError, PluginError
from automl_pt.core.out_of_memory import is_device_lost, is_out_of_memory
from automl_pt.training.device import NumberFormat
from automl_pt.training.evaluation import autocast

#: images in a rehearsal: more than one, unlike in `build_model`'s test
IMAGES = 3


def rehearse(
    model: nn.Module,
    name: str,
    classes: int,
    size: int,
    *,
    device: torch.device,
    precision: NumberFormat,
    channels_last: bool,
    channels: int = 3,
) -> None:
    """Pass a few random images through in eval and in training mode, and the gradients back, without side effects.

    Raises PluginError for what a run would fail on later, or would not notice. Exhausted memory is ignored, because a
    run then takes fewer images at once.
    """
    require_trainable(model, name)
    _require_scalable(model, name, precision)
    drawn = torch.randn(IMAGES, channels, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    images = drawn.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    was_training, before = model.training, [buffer.clone() for buffer in model.buffers()]
    try:
        with kept_random_state([device]), autocast(device, precision):
            _try_eval(model, name, classes, images)
            _try_training(model, name, classes, images)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    finally:
        model.train(was_training)
        _put_back(model.buffers(), before)
        model.zero_grad()


def _put_back(buffers: Iterable[Tensor], before: Iterable[Tensor]) -> None:
    with torch.no_grad():
        for buffer, value in zip(buffers, before, strict=False):
            if buffer.shape == value.shape:
                buffer.copy_(value)


def _try_eval(model: nn.Module, name: str, classes: int, images: Tensor) -> None:
    model.eval()
    with torch.inference_mode():
        logits = _forward(model, name, classes, images, "eval mode")
    _require_finite(logits, name, "eval mode")


def _try_training(model: nn.Module, name: str, classes: int, images: Tensor) -> None:
    mode = "training mode"
    model.train()
    logits = _forward(model, name, classes, images, mode)
    _require_finite(logits, name, mode)
    if not logits.requires_grad:
        raise PluginError(
            "the logits of a backbone's network do not depend on its parameters",
            given=f"{name}: they have no gradient, in training mode",
            remedy="remove detach(), no_grad() and tensors made of numbers from its forward()",
        )
    labels = torch.arange(len(images), device=images.device) % classes
    try:
        F.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]  # PyTorch's own
    except (Exception, SystemExit) as error:
        raise _blamed(error, name, "the backward pass", images) from error


def _forward(model: nn.Module, name: str, classes: int, images: Tensor, mode: str) -> Tensor:
    try:
        output = model(images)
    except (Exception, SystemExit) as error:
        raise _blamed(error, name, mode, images) from error
    logits = require_logits(output, name, len(images), classes, mode)
    if logits is not output:  # only in training mode, because `build_model` has checked eval mode
        model.register_forward_hook(take_logits)
    return logits


def _blamed(error: Exception | SystemExit, name: str, mode: str, images: Tensor) -> BaseException:
    """Return the error to raise for one that a pass raised: itself where it is no fault of the network."""
    if is_out_of_memory(error):
        return error
    if is_device_lost(error):
        return DeviceLostError(error)
    if "does not have a deterministic implementation" in str(error):
        operation = str(error).split(" does not have")[0].strip()
        given = (
            f"deterministic: {name} needs {operation}, which PyTorch cannot compute deterministically on this device"
        )
        return ConfigError([f"{given}; drop --deterministic, or choose another backbone or device"])
    return fails(name, mode, images.shape, error)


def _require_finite(logits: Tensor, name: str, mode: str) -> None:
    bad = int((~logits.isfinite()).sum())
    if bad:
        raise PluginError(
            "a backbone's network returns logits that are not finite, before any training",
            given=f"{name}: {bad} of {logits.numel()} are NaN or infinite for random images, in {mode}",
            remedy="check its forward() for divisions by zero and logarithms, and its weights for NaN",
        )


def _require_scalable(model: nn.Module, name: str, precision: NumberFormat) -> None:
    halves = [key for key, parameter in model.named_parameters() if parameter.dtype == torch.float16]
    if precision == "fp16" and halves:
        raise PluginError(
            "parameters in 16 bits cannot be trained in fp16, whose gradients are scaled",
            given=f"{name}: {', '.join(halves[:3])} is float16",
            remedy="give --precision fp32 or bf16, or keep the parameters in float32",
        )
