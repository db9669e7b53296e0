"""Batches made on a device by tensor operations: of images that are there, or of bytes that are sent there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from automl_pt.data.augmentation import Plan, make_batch
from automl_pt.data.parallel import in_order
from automl_pt.data.pixels import Images, Rows
from automl_pt.images.preprocessing import Channels, scale_and_offset

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: buffers that are filled in turns while the one before is sent
BUFFERS = 2


class _OnDevice:
    """Labels and an epoch's plan on the device.

    The tensors stay the same, and a new epoch's plan is copied into them, because a recorded graph reads from the
    memory that it was recorded with.
    """

    def __init__(
        self, labels: NDArray[np.int64], device: torch.device, *, mean: Channels, std: Channels, channels_last: bool
    ) -> None:
        self.device, self.channels_last = device, channels_last
        self.labels = torch.from_numpy(labels).to(device)
        self.shifts = torch.zeros(len(labels), 2, dtype=torch.int64, device=device)
        self.flips = torch.zeros(len(labels), dtype=torch.bool, device=device)
        self.scale, self.offset = scale_and_offset(mean, std, device)

    def follow(self, plan: Plan) -> None:
        """Take over an epoch's shifts and flips."""
        self.shifts.copy_(torch.from_numpy(plan.shifts))
        self.flips.copy_(torch.from_numpy(plan.flips))

    def _made(self, images: Tensor, rows: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        drawn = self.shifts[indices], self.flips[indices], self.scale, self.offset
        return make_batch(images, rows, *drawn, channels_last=self.channels_last), self.labels[indices]


class DeviceSplit(_OnDevice):
    """Images [M, S, S, C] on a device, of which `rows` int64[N] are the split's."""

    def __init__(
        self,
        images: Tensor,
        rows: Tensor,
        labels: NDArray[np.int64],
        *,
        mean: Channels,
        std: Channels,
        channels_last: bool,
    ) -> None:
        super().__init__(labels, images.device, mean=mean, std=std, channels_last=channels_last)
        self.images, self.rows = images, rows

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images at `indices` int64[B] as float32[B, C, S, S], augmented and normalised, and int64[B]."""
        return self._made(self.images, self.rows[indices], indices)


class StreamedSplit(_OnDevice):
    """Images that stay in main memory, or are decoded when needed: their bytes are sent to the device batch by batch.

    A thread fills two buffers in turns, in memory that the device reads directly; where there is none of that, in
    ordinary memory, and `notes` says so.
    """

    def __init__(
        self,
        images: Images,
        labels: NDArray[np.int64],
        most: int,
        device: torch.device,
        *,
        mean: Channels,
        std: Channels,
        channels_last: bool,
    ) -> None:
        super().__init__(labels, device, mean=mean, std=std, channels_last=channels_last)
        self.images, self.notes = images, list[str]()
        self.dtype = torch.from_numpy(np.empty(0, images.dtype)).dtype
        # before the first step, because nothing may be allocated so while a graph is recorded
        self.buffers = [self._buffer((most, *images.shape[1:])) for _ in range(BUFFERS)]
        self.sent: list[torch.cuda.Event | None] = [None] * BUFFERS

    def _buffer(self, shape: tuple[int, ...]) -> Tensor:
        if self.device.type == "cuda" and not self.notes:
            try:
                return torch.empty(shape, dtype=self.dtype, pin_memory=True)
            except RuntimeError as error:
                why = str(error).splitlines()[0]
                self.notes.append(f"images are sent to the GPU from ordinary memory, because none is pinned: {why}")
        return torch.empty(shape, dtype=self.dtype)

    def epoch(self, plan: Plan, chosen: Sequence[NDArray[np.int64]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batch of each of the `chosen` indices int64[B]."""
        if not chosen:
            return
        self.follow(plan)
        order = torch.from_numpy(np.concatenate(chosen)).to(self.device)
        raw = in_order(self._fill, enumerate(chosen), threads=1, ahead=BUFFERS)
        parts = torch.split(order, [len(indices) for indices in chosen])
        for turn, (indices, bytes_) in enumerate(zip(parts, raw, strict=True)):
            images = bytes_.to(self.device, non_blocking=True)
            self._mark(turn)
            rows = torch.arange(len(indices), device=self.device)
            yield self._made(images.permute(0, 2, 3, 1), rows, indices)

    def _fill(self, turn: tuple[int, NDArray[np.int64]]) -> Tensor:
        number, indices = turn
        if (sent := self.sent[number % BUFFERS]) is not None:
            sent.synchronize()
        target = self.buffers[number % BUFFERS][: len(indices)]
        if isinstance(self.images, Rows):
            np.take(self.images.array, self.images.rows[indices], axis=0, out=target.numpy(), mode="clip")
        else:
            target.numpy()[:] = self.images[indices]
        return target

    def _mark(self, turn: int) -> None:
        """Note when the device has read a buffer, which is filled again only then."""
        if self.device.type == "cuda":
            self.sent[turn % BUFFERS] = event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # as PyTorch left it
            event.record(torch.cuda.current_stream(self.device))
