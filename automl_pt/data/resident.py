"""Keeps decoded images on a CUDA device, one copy for all loaders of a study in this process."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from automl_pt.core.out_of_memory import is_out_of_memory
from automl_pt.data.pixels import Images, Rows

#: limits of the images' size: share of the device's memory, and share of its free memory
SHARE, FREE_SHARE = 0.25, 0.5
#: bytes copied at a time
BLOCK = 64 << 20


def upload(images: Images, device: torch.device) -> tuple[Tensor, Tensor] | str | None:
    """Return [M, S, S, C] on `device` and int64[N], the row of each of `images` in it; or why it is not there.

    Rows of one cache share one copy. Only CUDA devices keep images, and only decoded ones; None for others.
    """
    if device.type != "cuda":
        return None
    if isinstance(images, np.ndarray):
        images = Rows(images, np.arange(len(images)))
    if not isinstance(images, Rows):
        return None
    copy, size = images.copies.get(str(device)), f"{images.array.nbytes / 2**30:.1f} GiB"
    if copy is None and not fits(images.array.nbytes, device):
        return f"images are sent to the GPU batch by batch: {size} are more than the share of its memory for images"
    try:
        if copy is None:
            copy = images.copies[str(device)] = copied(images.array, device)
        return copy, torch.from_numpy(images.rows).to(device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return f"images are sent to the GPU batch by batch: it ran out of memory for {size} of them"


def fits(size: int, device: torch.device) -> bool:
    """Return whether `size` bytes are within the shares of a CUDA device's memory."""
    free, total = torch.cuda.mem_get_info(device)
    return size <= SHARE * total and size <= FREE_SHARE * free


def copied(array: np.ndarray[tuple[int, ...], np.dtype[Any]], device: torch.device) -> Tensor:
    """Copy [M, C, S, S] to `device` as [M, S, S, C] block by block, because a memory map cannot be pinned."""
    count, channels, side, _ = array.shape
    dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
    result = torch.empty(count, side, side, channels, dtype=dtype, device=device)
    rows = max(1, BLOCK // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        # copied, because torch does not accept read-only arrays
        block = torch.from_numpy(array[start : start + rows].copy()).to(device)
        result[start : start + rows] = block.permute(0, 2, 3, 1)
    return result
