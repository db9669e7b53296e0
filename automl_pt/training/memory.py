"""Whether a batch fits into memory, asked before the first step: a CPU that runs out of it is not told, but killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from automl_pt.backbones.random_state import kept_random_state
from automl_pt.training.batch_norm import train_mode

if TYPE_CHECKING:
    from automl_pt.training.step import Step

#: share of the free memory that a step may take
SHARE = 0.8
#: what backward takes beside what forward keeps: the gradients on their way, and workspaces
BACKWARD = 1.5
PROBE = 2
#: how often the weights are in memory: themselves, gradients, momentum, and a moving average or a copy to save
WEIGHTS = 4


def bytes_per_image(model: nn.Module, images: Tensor) -> float:
    """Return the bytes that a training step takes for each image, from what a forward pass of `images` keeps.

    The model's statistics and the random state are put back.
    """
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    # what is saved is held here until all is counted, so that no address is used twice, and detached: a hook that gives
    # back the tensor itself closes a cycle through the graph that no garbage collector sees, and nothing is ever freed
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


def step_memory(model: nn.Module, image_size: int, *, half: bool) -> tuple[int, float]:
    """Return the bytes a step takes: whatever the batch, and for each image; from passes of a few images on a CPU.

    The free memory that a step may not take is counted in. With `half` the pass runs in a 16-bit format.
    """
    blank = next(model.parameters())
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        few, more = (
            count * bytes_per_image(model, blank.new_zeros(count, 3, image_size, image_size))
            for count in (PROBE, 2 * PROBE)
        )
    per_image = (more - few) / PROBE
    weights = sum(parameter.nbytes for parameter in model.parameters())
    fixed = WEIGHTS * weights + max(0.0, few - PROBE * per_image)
    return int(fixed / SHARE), per_image / SHARE


def try_out(step: Step, batch_size: int, image_size: int) -> int:
    """Take a step with `batch_size` blank images and undo it; return the device's peak memory in bytes, 0 on a CPU.

    A step that runs out of memory halves its micro-batch and tries again: so a batch is cut here, and not in an epoch.
    """
    device = step.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    images = torch.zeros(batch_size, 3, image_size, image_size, device=device)
    labels = torch.zeros(batch_size, dtype=torch.int64, device=device)
    training = step.model.training
    with step.restoring_state():
        train_mode(step.model, keep_statistics=step.config.keeps_batch_norm)
        step(images, labels, 0.0)
    step.model.train(training)
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def images_that_fit(model: nn.Module, image_size: int, free: int) -> int:
    """Return how many images a step may take at once with `free` bytes of memory; at least 1."""
    layout = next(model.parameters()).new_zeros(PROBE, 3, image_size, image_size)
    return max(1, int(SHARE * free / max(1.0, bytes_per_image(model, layout))))
