"""Keeps decoded images on a CUDA device, one copy for all loaders of a study in this process."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from automl_pt.data.pixels import Images, Rows

#: limits of the images' size: share of the device's memory, and share of its free memory
SHARE, FREE_SHARE = 0.25, 0.5
#: bytes copied at a time
BLOCK = 64 << 20


def upload(images: Images, device: torch.device) -> tuple[Tensor, Tensor] | None:
    """Return uint8[M, 3, S, S] on `device` and int64[N], the row of each of `images` in it; None if they do not fit.

    Rows of one cache share one copy. None for devices other than CUDA.
    """
    if device.type != "cuda":
        return None
    if isinstance(images, np.ndarray):
        images = Rows(images, np.arange(len(images)))
    if not isinstance(images, Rows):
        return None
    copy = images.copies.get(str(device))
    if copy is None and fits(images.array.nbytes, device):
        copy = images.copies[str(device)] = copied(images.array, device)
    return None if copy is None else (copy, torch.from_numpy(images.rows).to(device))


def fits(size: int, device: torch.device) -> bool:
    """Return whether `size` bytes are within the shares of a CUDA device's memory."""
    free, total = torch.cuda.mem_get_info(device)
    return size <= SHARE * total and size <= FREE_SHARE * free


def copied(array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], device: torch.device) -> Tensor:
    """Copy uint8[M, 3, S, S] to `device` block by block, because a memory map cannot be pinned."""
    result = torch.empty(array.shape, dtype=torch.uint8, device=device)
    rows = max(1, BLOCK // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        # copied, because torch does not accept read-only arrays
        result[start : start + rows] = torch.from_numpy(array[start : start + rows].copy()).to(device)
    return result
