"""Augmentation by shifts and mirroring, drawn by (seed, epoch, index), applied per image on a CPU, per batch on a GPU.

A shift moves an image by up to an eighth of its side, with the border filled by reflection; every second image is
mirrored; each where the dataset's hints allow it. By default a run's last epochs use unaugmented images: refining on
clean data after augmented data is the method of He et al., Data Augmentation Revisited (arXiv 1909.09148, 2019).
docs/evidence/recipe.md measures its effect.

Images are cached at the training side and shifted, not cached larger and cropped at random. On 1,768 photos at 64
pixels (`benchmarks/augmentation.py`: a small network, 8 epochs, two seeds) the validation loss was 0.853 this way,
0.892 with crops of 35 to 100 % of the area from a cache at 96 pixels, and 0.905 from one at 128; these caches take
2.25 and 4 times the space. Long trainings of large networks may give another order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from automl_pt.core.seeds import derive_seed
from automl_pt.data.pixels import Images, Rows
from automl_pt.images.preprocessing import normalise

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: largest shift: the side divided by this
SHIFT = 8


@dataclass(frozen=True)
class Plan:
    """An epoch's plan: `order` int64[N] into the split; `shifts` int64[N, 2] (down, right) and `flips` bool[N].

    Shifts and flips are indexed by an image's position in the split, not by the order.
    """

    order: NDArray[np.int64]
    shifts: NDArray[np.int64]
    flips: NDArray[np.bool_]


def make_plan(count: int, *, seed: int, epoch: int, max_shift: int, flip: bool, shuffle: bool) -> Plan:
    """Draw an epoch's plan for `count` images; an image's draws do not depend on the number of images."""
    # a counter-based generator, whose raw words are stable across NumPy versions: row i depends on (seed, epoch, i)
    words = np.random.Philox(key=derive_seed(seed, "loader", epoch)).random_raw(2 * count).reshape(count, 2)
    order = np.argsort(words[:, 0], kind="stable") if shuffle else np.arange(count)
    # the upper 24 bits, the next 24 bits and the lowest bit of a 64-bit word are independent draws
    draws = np.stack([words[:, 1] >> 40, (words[:, 1] >> 16) & 0xFFFFFF], axis=1).astype(np.int64)
    shifts = ((draws * (2 * max_shift + 1)) >> 24) - max_shift
    flips = ((words[:, 1] & 1) == 1) & flip
    return Plan(order.astype(np.int64), shifts, flips)


def gather(
    images: Images,
    indices: NDArray[np.int64],
    shifts: NDArray[np.int64],
    flips: NDArray[np.bool_],
    *,
    channels_last: bool = False,
) -> NDArray[Any]:
    """Return the images at `indices` int64[B], shifted by int64[B, 2] and mirrored by bool[B], as [B, C, S, S].

    `channels_last` is the layout of the result in memory.
    """
    if isinstance(images, Rows):
        array, places = images.array, images.rows[indices]
    elif isinstance(images, np.ndarray):
        array, places = images, indices
    else:
        array, places = images[indices], np.arange(len(indices))
    if not channels_last and not shifts.any() and not flips.any():
        return array[places]
    channels, side = array.shape[1], array.shape[-1]
    batch = np.empty((len(places), channels, side, side), array.dtype)
    if channels_last:
        batch = np.empty((len(places), side, side, channels), array.dtype).transpose(0, 3, 1, 2)
    moved = np.empty((channels, side, side), array.dtype)
    moves = zip(places.tolist(), shifts.tolist(), flips.tolist(), strict=True)
    for target, (place, (down, right), flip) in zip(batch, moves, strict=True):
        image = moved if channels_last else target
        shift_into(image[:, :, ::-1] if flip else image, array[place], down, right)
        if channels_last:  # one channel at a time, because numpy writes three interleaved ones at a third of the speed
            for channel in range(channels):
                target[channel] = moved[channel]
    return batch


def shift_into(target: NDArray[Any], image: NDArray[Any], down: int, right: int) -> None:
    """Write `image` [C, S, S] into `target`, moved by (down, right) pixels, each at most a third of S.

    The uncovered part reflects the pixels beside it, without repeating the border pixel.
    """
    side = image.shape[-1]
    top, bottom = max(0, down), min(side, side + down)
    start, end = max(0, right), min(side, side + right)
    target[:, top:bottom, start:end] = image[:, top - down : bottom - down, start - right : end - right]
    if right > 0:
        target[:, top:bottom, :start] = target[:, top:bottom, 2 * start : start : -1]
    elif right < 0:
        target[:, top:bottom, end:] = target[:, top:bottom, end - 2 : end - 2 + right : -1]
    if down > 0:
        target[:, :top] = target[:, 2 * top : top : -1]
    elif down < 0:
        target[:, bottom:] = target[:, bottom - 2 : bottom - 2 + down : -1]


def make_batch(
    images: Tensor,
    rows: Tensor,
    shifts: Tensor,
    flips: Tensor,
    scale: Tensor,
    offset: Tensor,
    *,
    channels_last: bool = False,
) -> Tensor:
    """Compute on any device, or within a captured graph, what `gather` and `normalise` compute on the CPU.

    `images` [N, S, S, C], of which a batch has the `rows` int64[B]; `shifts` int64[B, 2] and `flips` bool[B] of
    the batch; `scale` and `offset` float32[C, 1, 1]; all on one device. Returns float32[B, C, S, S].
    """
    side, channels = images.shape[1], images.shape[3]
    grid = torch.arange(side, device=images.device)
    lines = _reflected(grid - shifts[:, :1], side)
    columns = _reflected(torch.where(flips[:, None], side - 1 - grid, grid) - shifts[:, 1:], side)
    # one index for the channels of a pixel, which are beside each other
    pixels = (rows[:, None, None] * side + lines[:, :, None]) * side + columns[:, None, :]
    picked = _picked(images.reshape(-1, channels), pixels.reshape(-1))
    batch = picked.view(len(rows), side, side, channels).permute(0, 3, 1, 2)
    return normalise(batch if channels_last else batch.contiguous(), scale, offset)


def _picked(table: Tensor, rows: Tensor) -> Tensor:
    """Return rows of a table; 16 bits without a sign are moved as ones with a sign, because CUDA selects only these."""
    if table.dtype != torch.uint16:
        return table.index_select(0, rows)
    return table.view(torch.int16).index_select(0, rows).view(torch.uint16)


def _reflected(positions: Tensor, side: int) -> Tensor:
    """Fold positions in (-side, 2 * side - 1) back into [0, side)."""
    positions = positions.abs()
    return torch.where(positions >= side, 2 * (side - 1) - positions, positions)
