"""Estimates whether a batch fits into memory before the first step, because the system kills a process on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from automl_pt.backbones.random_state import kept_random_state
from automl_pt.training.batch_norm import train_mode

if TYPE_CHECKING:
    from automl_pt.training.step import Step

#: share of the free memory for a step
SHARE = 0.8
#: memory of the backward pass relative to what the forward pass stores: gradients and workspaces
BACKWARD = 1.5
PROBE = 2
#: copies of the weights in memory: themselves, gradients, momentum, and a moving average or a copy for saving
WEIGHTS = 4


def bytes_per_image(model: nn.Module, images: Tensor) -> float:
    """Return the bytes of a training step per image, from what a forward pass of `images` stores.

    The model's statistics and the random state are restored.
    """
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    # stored tensors are kept until all are counted, so that no address is reused, and detached, because a hook that
    # returns the tensor itself creates a cycle through the graph that the garbage collector cannot free
    held: list[Tensor] = []
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> int:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        held.append(tensor.detach())
        return len(held) - 1

    before = [buffer.clone() for buffer in model.buffers()]
    with kept_random_state(), torch.autograd.graph.saved_tensors_hooks(keep, held.__getitem__):
        model(images)
    with torch.no_grad():
        for buffer, value in zip(model.buffers(), before, strict=True):
            buffer.copy_(value)
    return BACKWARD * sum(kept.values()) / len(images)


def step_memory(model: nn.Module, image_size: int, *, half: bool, channels: int = 3) -> tuple[int, float]:
    """Return the bytes of a step, for any batch and per image, from passes of a few images on a CPU.

    The free memory that a step may not use is included. With `half` the pass runs in a 16-bit format.
    """
    blank = next(model.parameters())
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        few, more = (
            count * bytes_per_image(model, blank.new_zeros(count, channels, image_size, image_size))
            for count in (PROBE, 2 * PROBE)
        )
    per_image = (more - few) / PROBE
    weights = sum(parameter.nbytes for parameter in model.parameters())
    fixed = WEIGHTS * weights + max(0.0, few - PROBE * per_image)
    return int(fixed / SHARE), per_image / SHARE


def try_out(step: Step, batch_size: int, image_size: int, channels: int = 3) -> int:
    """Run a step with `batch_size` blank images and revert it; return the device's peak memory in bytes, 0 on a CPU.

    A step that runs out of memory halves its micro-batch and tries again, so a batch is split here, not in an epoch.
    """
    device = step.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    images = torch.zeros(batch_size, channels, image_size, image_size, device=device)
    labels = torch.zeros(batch_size, dtype=torch.int64, device=device)
    training = step.model.training
    with step.restoring_state():
        train_mode(step.model, keep_statistics=step.config.keeps_batch_norm)
        step(images, labels, 0.0)
    step.model.train(training)
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def probed(model: nn.Module, image_size: int, channels: int = 3) -> float:
    """Return the bytes of a training step per image, at least 1, from a pass of a few blank images."""
    return max(1.0, bytes_per_image(model, next(model.parameters()).new_zeros(PROBE, channels, image_size, image_size)))


def images_that_fit(per_image: float, free: int) -> int:
    """Return how many images, of so many bytes each, fit into a step with `free` bytes of memory; at least 1."""
    return max(1, int(SHARE * free / per_image))
