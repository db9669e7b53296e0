"""Batches whose order and augmentation depend on (seed, epoch, index) alone: any worker, any restart gives the same.

Augmentation is a shift by up to an eighth of the side, the border filled by reflection, and a mirror image for every
second image, each where the dataset's hints allow it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from automl_pt.preprocessing import Channels, normalise, scale_and_offset
from automl_pt.seeds import derive_seed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from automl_pt.data import Pixels
    from automl_pt.dataset import Hints

#: largest shift, as a part of the side
SHIFT = 8


@dataclass(frozen=True)
class Plan:
    """What an epoch does: `order` int64[N] into the split; `shifts` int64[N, 2] (down, right) and `flips` bool[N].

    Shifts and flips stand at an image's index in the split, not at its place in the order.
    """

    order: NDArray[np.int64]
    shifts: NDArray[np.int64]
    flips: NDArray[np.bool_]


def make_plan(count: int, *, seed: int, epoch: int, max_shift: int, flip: bool, shuffle: bool) -> Plan:
    """Draw an epoch's plan for `count` images; an image's draw does not depend on how many others there are."""
    words = _words(derive_seed(seed, "loader", epoch), count)
    order = np.argsort(words[:, 0], kind="stable") if shuffle else np.arange(count)
    # the high 24 bits, the 24 below them and the lowest of one 64-bit word are three independent draws
    draws = np.stack([words[:, 1] >> 40, (words[:, 1] >> 16) & 0xFFFFFF], axis=1).astype(np.int64)
    shifts = ((draws * (2 * max_shift + 1)) >> 24) - max_shift
    flips = (words[:, 1] & 1).astype(np.bool_) & flip
    return Plan(order.astype(np.int64), shifts, flips)


def _words(key: int, count: int) -> NDArray[np.uint64]:
    """Return uint64[count, 2] from a counter-based generator: row i is a function of (key, i)."""
    return np.random.Philox(key=key).random_raw(2 * count).reshape(count, 2)


def batch_sizes(count: int, batch_size: int) -> list[int]:
    """Cut `count` images into batches; a last batch of one image is joined to the batch before it."""
    sizes = [batch_size] * (count // batch_size)
    rest = count % batch_size
    if rest == 1 and sizes:
        sizes[-1] += 1
    elif rest:
        sizes.append(rest)
    return sizes


class Loader:
    """Yields batches of `pixels` as float32[B, 3, S, S] and int64[B] on `device`; every image once an epoch.

    `wait_seconds` adds up the time that the consumer waited for batches.
    """

    def __init__(
        self,
        pixels: Pixels,
        *,
        batch_size: int,
        mean: Channels,
        std: Channels,
        seed: int,
        device: torch.device,
        hints: Hints,
        augment: bool,
        shuffle: bool,
        channels_last: bool = False,
    ) -> None:
        self.images, self.labels = pixels.images, pixels.labels
        self.batch_sizes = batch_sizes(len(self.labels), batch_size)
        self.seed, self.device, self.shuffle = seed, device, shuffle
        self.max_shift = pixels.images.shape[-1] // SHIFT if augment and hints.shift else 0
        self.flip = augment and hints.horizontal_flip
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.scale, self.offset = scale_and_offset(mean, std, device)
        self.wait_seconds = 0.0

    def plan(self, epoch: int) -> Plan:
        """Return the order and the augmentation of `epoch`."""
        return make_plan(
            len(self.labels),
            seed=self.seed,
            epoch=epoch,
            max_shift=self.max_shift,
            flip=self.flip,
            shuffle=self.shuffle,
        )

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of `epoch`, leaving out the first `start` of them."""
        began = time.perf_counter()
        plan = self.plan(epoch)
        edges = np.cumsum([0, *self.batch_sizes])
        for first, last in zip(edges[start:-1], edges[start + 1 :], strict=True):
            batch = self._batch(plan, plan.order[first:last])
            self.wait_seconds += time.perf_counter() - began
            yield batch
            began = time.perf_counter()

    def _batch(self, plan: Plan, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        images = torch.from_numpy(gather(self.images, indices, plan.shifts[indices], plan.flips[indices]))
        labels = torch.from_numpy(self.labels[indices])
        images = images.to(self.device).contiguous(memory_format=self.layout)
        return normalise(images, self.scale, self.offset), labels.to(self.device)


def gather(
    images: NDArray[np.uint8], indices: NDArray[np.int64], shifts: NDArray[np.int64], flips: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Return the images at `indices`, shifted with reflected borders and mirrored, as uint8[B, 3, S, S]."""
    batch = np.ascontiguousarray(images[indices])
    for image, (down, right), flip in zip(batch, shifts.tolist(), flips.tolist(), strict=True):
        if down or right:
            image[:] = shifted(image, down, right)
        if flip:
            image[:] = image[:, :, ::-1].copy()
    return batch


def shifted(image: NDArray[np.uint8], down: int, right: int) -> NDArray[np.uint8]:
    """Move `image` uint8[3, S, S] by (down, right) pixels, |shift| < S; the border reflects what is beside it."""
    side = image.shape[-1]
    result = np.empty_like(image)
    top, bottom = max(0, down), min(side, side + down)
    left, right_edge = max(0, right), min(side, side + right)
    result[:, top:bottom, left:right_edge] = image[:, top - down : bottom - down, left - right : right_edge - right]
    if right > 0:
        result[:, top:bottom, :left] = result[:, top:bottom, 2 * left : left : -1]
    elif right < 0:
        result[:, top:bottom, right_edge:] = result[:, top:bottom, right_edge - 2 : right_edge - 2 + right : -1]
    if down > 0:
        result[:, :top] = result[:, 2 * top : top : -1]
    elif down < 0:
        result[:, bottom:] = result[:, bottom - 2 : bottom - 2 + down : -1]
    return result


def make_batch(
    images: Tensor,
    labels: Tensor,
    indices: Tensor,
    shifts: Tensor,
    flips: Tensor,
    scale: Tensor,
    offset: Tensor,
) -> tuple[Tensor, Tensor]:
    """Do on a device, and inside a captured graph, what `gather` and `normalise` do on the CPU.

    `images` uint8[N, 3, S, S], `labels` int64[N]; `indices` int64[B], `shifts` int64[B, 2] and `flips` bool[B] of the
    batch; all on one device. Returns float32[B, 3, S, S] and int64[B].
    """
    side = images.shape[-1]
    grid = torch.arange(side, device=images.device)
    columns = torch.where(flips[:, None], side - 1 - grid, grid)
    rows = reflect(grid - shifts[:, :1], side)
    columns = reflect(columns - shifts[:, 1:], side)
    channels = torch.arange(3, device=images.device)[None, :, None, None]
    picked = images[indices[:, None, None, None], channels, rows[:, None, :, None], columns[:, None, None, :]]
    return normalise(picked, scale, offset), labels[indices]


def reflect(positions: Tensor, side: int) -> Tensor:
    """Fold positions in (-side, 2 * side - 1) back into [0, side), without repeating the border pixel."""
    positions = positions.abs()
    return torch.where(positions >= side, 2 * (side - 1) - positions, positions)
