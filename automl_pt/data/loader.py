"""Batches whose order and augmentation depend on (seed, epoch, index) only, so any worker or restart repeats them.

On the CPU a batch is gathered from the cache on request, without worker processes. On a GPU batches are made on the
device: of decoded images that stay there if they fit, else of the bytes that a thread sends there. Images that are
decoded for each batch, or changed one by one, are gathered some batches ahead in a thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from automl_pt.data.augmentation import SHIFT, Plan, gather, make_plan
from automl_pt.data.balanced import balanced_order
from automl_pt.data.device_split import DeviceSplit, StreamedSplit
from automl_pt.data.parallel import in_order
from automl_pt.data.pixels import Undecoded
from automl_pt.data.policy import SHIFT_FLIP, Policy
from automl_pt.data.resident import upload
from automl_pt.images.preprocessing import Channels, normalise, scale_and_offset

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from automl_pt.data.pixels import Pixels
    from automl_pt.dataset import Hints


def batch_sizes(count: int, batch_size: int, processes: int = 1) -> list[int]:
    """Divide `count` images into batches; a last batch of one image is joined to the batch before it.

    With several `processes`, which share each batch, this also applies if one process would get a single image.
    """
    sizes = [batch_size] * (count // batch_size)
    rest = count % batch_size
    if 0 < rest < 2 * processes and sizes:
        sizes[-1] += rest
    elif rest:
        sizes.append(rest)
    return sizes


class Loader:
    """Yields batches of `pixels` as float32[B, C, S, S] and int64[B] on `device`; every image once an epoch,
    or with `balanced` every class equally often.

    `wait_seconds` adds up the time that the consumer waited for batches. `share` is (number, count) of the processes
    that divide the images: shuffled batches are divided each, others come as one block of the split. The first
    `augmented_epochs` of a run are augmented, those after them are not, and `policy` says how. Where it mixes batches,
    labels are float32[B, classes] in all epochs.
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
        balanced: bool = False,
        policy: Policy = SHIFT_FLIP,
    ) -> None:
        self.share, self.balanced, self.policy = share, balanced, policy
        self.images, self.labels = pixels.images, pixels.labels
        self.batch_sizes = batch_sizes(len(self.labels), batch_size, share[1])
        self.seed, self.device, self.shuffle, self.channels_last = seed, device, shuffle, channels_last
        self.augmented_epochs = augmented_epochs
        self.max_shift = pixels.images.shape[-1] // SHIFT if hints.shift and policy.shift else 0
        self.flip = hints.horizontal_flip and policy.flip
        self.scale, self.offset = scale_and_offset(mean, std, device)
        #: the split on the device, if it is kept there
        self.resident: DeviceSplit | None = None
        #: what sends images to a device that does not keep them
        self.streamed: StreamedSplit | None = None
        self.notes: list[str] = []
        if not policy.transforms:
            self._place(upload(pixels.images, device), {"mean": mean, "std": std, "channels_last": channels_last})
        elif device.type == "cuda":
            names = ", ".join(name for name, _ in policy.transforms)
            self.notes.append(f"images are sent to the GPU batch by batch: the CPU changes each of them ({names})")
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
        augmented = self._augments(epoch)
        plan = make_plan(
            len(self.labels),
            seed=self.seed,
            epoch=epoch,
            max_shift=self.max_shift if augmented else 0,
            flip=self.flip and augmented,
            shuffle=self.shuffle,
        )
        if self.balanced:
            return replace(plan, order=balanced_order(self.labels, seed=self.seed, epoch=epoch))
        return plan

    def _augments(self, epoch: int) -> bool:
        return max(1, epoch) <= self.augmented_epochs  # evaluation reads an epoch 0

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of `epoch`, without the first `start`."""
        began = time.perf_counter()
        for batch in self._batches(epoch, start):
            self.wait_seconds += time.perf_counter() - began
            yield batch
            began = time.perf_counter()

    def indices(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor]]:
        """Yield, for a split on the device, int64[B] in place of each batch of `epoch`, for `resident.batch`.

        The plan is copied to the device once, and nothing waits for the device.
        """
        assert self.resident is not None, "only a split on the device has batches of indices"
        plan = self.plan(epoch)
        self.resident.follow(plan)
        chosen = self._chosen(plan)[start:]
        if chosen:
            order = torch.from_numpy(np.concatenate(chosen)).to(self.device)
            for part in torch.split(order, [len(part) for part in chosen]):
                yield (part,)

    def _batches(self, epoch: int, start: int) -> Iterable[tuple[Tensor, Tensor]]:
        plan = self.plan(epoch)
        chosen = self._chosen(plan)[start:]
        made = self._made(epoch, start, plan, chosen)
        return map(partial(self._mix, epoch), chosen, made) if self.policy.mixes else made

    def _made(
        self, epoch: int, start: int, plan: Plan, chosen: list[NDArray[np.int64]]
    ) -> Iterable[tuple[Tensor, Tensor]]:
        """Return the batches of the `chosen` indices, not mixed yet."""
        if self.resident is not None:
            resident = self.resident
            return (resident.batch(part) for (part,) in self.indices(epoch, start))
        if self.streamed is not None:
            return self.streamed.epoch(plan, chosen)
        gathered = partial(self._gather, plan)
        is_slow = isinstance(self.images, Undecoded) or self.device.type == "cuda"
        found = in_order(gathered, chosen, threads=1) if is_slow else map(gathered, chosen)
        return map(partial(self._finish, epoch), chosen, found)

    def _mix(self, epoch: int, indices: NDArray[np.int64], batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        images, labels = batch
        if not self._augments(epoch):
            return images, self.policy.shares(labels)
        return self.policy.mixed(images, labels, int(indices[0]), self.seed, epoch)

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

    def _finish(self, epoch: int, indices: NDArray[np.int64], batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        if self.policy.transforms and self._augments(epoch):
            layout = torch.channels_last if self.channels_last else torch.contiguous_format
            changed = self.policy.changed(batch[0], indices.tolist(), self.seed, epoch)
            batch = changed.contiguous(memory_format=layout), batch[1]
        images, labels = (part.to(self.device) for part in batch)
        return normalise(images, self.scale, self.offset), labels
