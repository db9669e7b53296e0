"""Measures whether a model's probabilities are calibrated: of images given 90 %, nine in ten should be right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from automl_pt.model.softmax import softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: bins of equal width over the probability of the likeliest class
BINS = 15


@dataclass(frozen=True)
class Bin:
    """Images whose likeliest class has a probability in one bin: its mean, and the share of them that is right."""

    images: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """`ece`, the expected calibration error, averages the bins' |accuracy - confidence| over images; no empty bins."""

    ece: float
    bins: tuple[Bin, ...]


def calibrate(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Calibration:
    """Measure the calibration of logits float32[N, C] against labels int64[N], N > 0, on the likeliest class."""
    from sklearn.calibration import calibration_curve

    # float32 sometimes rounds a sum of 1 up, which calibration_curve refuses
    confidence = np.minimum(softmax(logits).max(axis=1).astype(np.float64), 1.0)
    right = (logits.argmax(axis=1) == labels).astype(np.int64)
    accuracies, confidences = calibration_curve(right, confidence, n_bins=BINS, strategy="uniform", pos_label=1)
    # calibration_curve returns no counts, so they are computed with its edges and sides
    places = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], confidence)
    counts = np.bincount(places, minlength=BINS)
    counts = counts[counts > 0]
    ece = float(np.sum(counts * np.abs(accuracies - confidences)) / len(labels))
    bins = zip(counts.tolist(), confidences.tolist(), accuracies.tolist(), strict=True)
    return Calibration(ece, tuple(Bin(*values) for values in bins))
