"""Whether a batch fits into memory, asked before the first step: a CPU that runs out of it is not told, but killed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: share of the free memory that a step may take
SHARE = 0.8
#: what backward takes beside what forward keeps: the gradients on their way, and workspaces
BACKWARD = 1.5
PROBE = 2


def bytes_per_image(model: nn.Module, images: Tensor) -> float:
    """Return the bytes that a training step takes for each image, from what a forward pass of `images` keeps.

    The model's statistics and the random state are put back.
    """
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    before = [buffer.clone() for buffer in model.buffers()]
    with torch.random.fork_rng([]), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(images)  # held until all is counted, so that no address is used twice
    del logits
    with torch.no_grad():
        for buffer, value in zip(model.buffers(), before, strict=True):
            buffer.copy_(value)
    return BACKWARD * sum(kept.values()) / len(images)


def images_that_fit(model: nn.Module, image_size: int, free: int) -> int:
    """Return how many images a step may take at once with `free` bytes of memory; at least 1."""
    layout = next(model.parameters()).new_zeros(PROBE, 3, image_size, image_size)
    return max(1, int(SHARE * free / max(1.0, bytes_per_image(model, layout))))
