"""Converts logits to probabilities, for prediction, scores and calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def softmax(logits: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float32]:
    """Return the softmax of logits / temperature over the last axis, computed in float64, as float32."""
    scaled = torch.tensor(logits, dtype=torch.float64) / temperature
    result: NDArray[np.float32] = scaled.softmax(-1).float().numpy()
    return result
