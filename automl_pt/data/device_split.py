"""A split kept completely on a device, where batches are made from indices by tensor operations."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from automl_pt.data.augmentation import Plan, make_batch
from automl_pt.images.preprocessing import Channels


class DeviceSplit:
    """Images uint8[M, 3, S, S], of which `rows` int64[N] are the split's, its labels, and an epoch's plan.

    The tensors stay the same, and a new epoch's plan is copied into them, because a recorded graph reads from the
    memory that it was recorded with.
    """

    def __init__(
        self,
        images: Tensor,
        rows: Tensor,
        labels: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
        *,
        mean: Channels,
        std: Channels,
        channels_last: bool,
    ) -> None:
        device, count = images.device, len(labels)
        self.images, self.rows, self.channels_last = images, rows, channels_last
        self.labels = torch.from_numpy(labels).to(device)
        self.shifts = torch.zeros(count, 2, dtype=torch.int64, device=device)
        self.flips = torch.zeros(count, dtype=torch.bool, device=device)
        self.mean, self.std = torch.tensor(mean, device=device), torch.tensor(std, device=device)

    def follow(self, plan: Plan) -> None:
        """Copy an epoch's shifts and flips into the tensors."""
        self.shifts.copy_(torch.from_numpy(plan.shifts))
        self.flips.copy_(torch.from_numpy(plan.flips))

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images at `indices` int64[B] as float32[B, 3, S, S], augmented and normalised, and int64[B]."""
        images, _ = make_batch(
            self.images,
            self.labels,
            self.rows[indices],
            self.shifts[indices],
            self.flips[indices],
            self.mean,
            self.std,
            channels_last=self.channels_last,
        )
        return images, self.labels[indices]
