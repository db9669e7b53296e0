"""Batches whose order and augmentation depend on (seed, epoch, index) alone: any worker, any restart gives the same.

On the CPU a batch is gathered from the cache when it is asked for, with no worker processes. On a GPU batches are made
on the device: of decoded images that are kept there, where they fit, else of the bytes that a thread sends there.
Images that are decoded when needed are gathered some batches ahead in a thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from automl_pt.data.augmentation import SHIFT, Plan, gather, make_plan
from automl_pt.data.device_split import DeviceSplit, StreamedSplit
from automl_pt.data.parallel import in_order
from automl_pt.data.pixels import Undecoded
from automl_pt.data.resident import upload
from automl_pt.images.preprocessing import Channels, normalise, scale_and_offset

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from automl_pt.data.pixels import Pixels
    from automl_pt.dataset import Hints


def batch_sizes(count: int, batch_size: int, processes: int = 1) -> list[int]:
    """Cut `count` images into batches; a last batch of one image is joined to the batch before it.

    With several `processes`, which share each batch, so is a last batch that leaves one of them with a single image.
    """
    sizes = [batch_size] * (count // batch_size)
    rest = count % batch_size
    if 0 < rest < 2 * processes and sizes:
        sizes[-1] += rest
    elif rest:
        sizes.append(rest)
    return sizes


class Loader:
    """Yields batches of `pixels` as float32[B, 3, S, S] and int64[B] on `device`; every image once an epoch.

    `wait_seconds` adds up the time that the consumer waited for batches. `share` is (number, count) of the processes
    that divide the images: shuffled batches are divided each, others come as one block of the split. The first
    `augmented_epochs` of a run are augmented, those after them are not.
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
        augmented_epochs: int,
        shuffle: bool,
        channels_last: bool = False,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.share = share
        self.images, self.labels = pixels.images, pixels.labels
        self.batch_sizes = batch_sizes(len(self.labels), batch_size, share[1])
        self.seed, self.device, self.shuffle, self.channels_last = seed, device, shuffle, channels_last
        self.augmented_epochs = augmented_epochs
        self.max_shift = pixels.images.shape[-1] // SHIFT if hints.shift else 0
        self.flip = hints.horizontal_flip
        self.scale, self.offset = scale_and_offset(mean, std, device)
        #: the split on the device, where it is kept there
        self.resident: DeviceSplit | None = None
        #: what sends images to a device that does not keep them
        self.streamed: StreamedSplit | None = None
        self.notes: list[str] = []
        self._place(upload(pixels.images, device), {"mean": mean, "std": std, "channels_last": channels_last})
        self.wait_seconds = 0.0

    def _place(self, found: tuple[Tensor, Tensor] | str | None, options: dict[str, Any]) -> None:
        """Keep the images on the device, or send them there; on a CPU neither."""
        if isinstance(found, tuple):
            self.resident = DeviceSplit(*found, self.labels, **options)
        elif self.device.type == "cuda":
            most = max(self.batch_sizes, default=1)
            self.streamed = StreamedSplit(self.images, self.labels, most, self.device, **options)
            self.notes = [*([found] if found else []), *self.streamed.notes]

    def plan(self, epoch: int) -> Plan:
        """Return the order and the augmentation of `epoch`."""
        augmented = max(1, epoch) <= self.augmented_epochs  # evaluation reads an epoch 0
        return make_plan(
            len(self.labels),
            seed=self.seed,
            epoch=epoch,
            max_shift=self.max_shift if augmented else 0,
            flip=self.flip and augmented,
            shuffle=self.shuffle,
        )

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of `epoch`, leaving out the first `start` of them."""
        began = time.perf_counter()
        for batch in self._batches(epoch, start):
            self.wait_seconds += time.perf_counter() - began
            yield batch
            began = time.perf_counter()

    def indices(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor]]:
        """Yield, for a split on the device, int64[B] in place of each batch of `epoch`, for `resident.batch`.

        The plan goes to the device once, and nothing waits for the device.
        """
        assert self.resident is not None, "only a split on the device is told by indices"
        plan = self.plan(epoch)
        self.resident.follow(plan)
        chosen = self._chosen(plan)[start:]
        if chosen:
            order = torch.from_numpy(np.concatenate(chosen)).to(self.device)
            for part in torch.split(order, [len(part) for part in chosen]):
                yield (part,)

    def _batches(self, epoch: int, start: int) -> Iterable[tuple[Tensor, Tensor]]:
        if self.resident is not None:
            resident = self.resident
            return (resident.batch(indices) for (indices,) in self.indices(epoch, start))
        plan = self.plan(epoch)
        chosen = self._chosen(plan)[start:]
        if self.streamed is not None:
            return self.streamed.epoch(plan, chosen)
        gathered = partial(self._gather, plan)
        if isinstance(self.images, Undecoded):
            return map(self._finish, in_order(gathered, chosen, threads=1))
        return map(self._finish, map(gathered, chosen))

    def _chosen(self, plan: Plan) -> list[NDArray[np.int64]]:
        """Return the indices of each batch, or of this process's share of it."""
        edges = np.cumsum([0, *self.batch_sizes]).tolist()
        batches, (number, count) = [plan.order[first:last] for first, last in pairwise(edges)], self.share
        if count == 1 or not batches:
            return batches
        if self.shuffle:
            return [np.array_split(batch, count)[number] for batch in batches]
        block, size = np.array_split(plan.order, count)[number], self.batch_sizes[0]
        return [block[first : first + size] for first in range(0, len(block), size)]

    def _gather(self, plan: Plan, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        chosen = (self.images, indices, plan.shifts[indices], plan.flips[indices])
        images = torch.from_numpy(gather(*chosen, channels_last=self.channels_last))
        labels = torch.from_numpy(self.labels[indices])
        return images, labels

    def _finish(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        images, labels = (part.to(self.device) for part in batch)
        return normalise(images, self.scale, self.offset), labels
