"""Scores a model's logits against the labels, with the figures of scikit-learn and torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_pt.model.calibration import Calibration, calibrate
from automl_pt.model.intervals import Interval, f1_intervals
from automl_pt.model.intervals import wilson as interval
from automl_pt.model.softmax import softmax
from automl_pt.model.thresholds import ClassThreshold, Threshold, class_thresholds, thresholds

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ClassScore", "Interval", "Scores", "cross_entropy", "interval", "losses_of", "score"]

#: limit of classes for a confusion matrix
MAX_CONFUSION = 2_000


@dataclass(frozen=True)
class ClassScore:
    """One class's figures. `predicted` counts the images assigned to it; a figure that would divide by 0 is None."""

    name: str
    images: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None
    #: Wilson's, 95 %
    precision_interval: Interval | None
    recall_interval: Interval | None
    #: by a bootstrap over the images, 95 %
    f1_interval: Interval | None


@dataclass(frozen=True)
class Scores:
    """Figures over all images: `loss` is the mean cross-entropy (log loss), `top5` is None for five classes or fewer.

    `macro` and `weighted` hold precision, recall and F1 over the classes that have images. `confusion[true][predicted]`
    counts images, `confusion_normalised` gives shares of the true class (0 for one without images); None if there
    are more than `MAX_CONFUSION` classes. Loss, calibration and thresholds are at `temperature`.
    """

    images: int
    loss: float
    accuracy: float
    #: Wilson's, 95 %
    accuracy_interval: Interval
    top5: float | None
    macro: dict[str, float]
    weighted: dict[str, float]
    per_class: tuple[ClassScore, ...]
    confusion: list[list[int]] | None
    confusion_normalised: list[list[float]] | None
    calibration: Calibration
    thresholds: tuple[Threshold, ...]
    class_thresholds: tuple[ClassThreshold, ...]
    temperature: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return asdict(self)


def score(
    logits: NDArray[np.float32], labels: NDArray[np.int64], classes: Sequence[str], *, temperature: float = 1.0
) -> Scores:
    """Score logits float32[N, C] against labels int64[N], N > 0; `classes` names the columns.

    Of equal logits the first column is the predicted one, as in validation. Figures of probabilities use
    logits / `temperature`, which does not change any prediction.
    """
    from sklearn.metrics import accuracy_score, top_k_accuracy_score

    predicted, every = logits.argmax(axis=1), np.arange(len(classes))
    scaled = logits if temperature == 1 else logits / np.float32(temperature)
    probabilities = softmax(scaled)
    return Scores(
        images=len(labels),
        loss=cross_entropy(scaled, labels),
        accuracy=float(accuracy_score(labels, predicted)),
        accuracy_interval=interval(int((predicted == labels).sum()), len(labels)),
        top5=float(top_k_accuracy_score(labels, logits, k=5, labels=every)) if len(classes) > 5 else None,
        macro=_average(labels, predicted, "macro"),
        weighted=_average(labels, predicted, "weighted"),
        per_class=_per_class(labels, predicted, classes),
        confusion=_confusion(labels, predicted, len(classes), None),
        confusion_normalised=_confusion(labels, predicted, len(classes), "true"),
        calibration=calibrate(scaled, labels),
        thresholds=thresholds(probabilities, labels),
        class_thresholds=class_thresholds(probabilities, labels, classes),
        temperature=temperature,
    )


def _confusion(labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int, share: str | None) -> Any:
    from sklearn.metrics import confusion_matrix

    if classes > MAX_CONFUSION:
        return None
    return confusion_matrix(labels, predicted, labels=np.arange(classes), normalize=share).tolist()


def cross_entropy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the mean cross-entropy per image, summed like in validation."""
    import torch

    return torch.from_numpy(losses_of(logits, labels)).mean().item()


def losses_of(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return each image's cross-entropy, float64[N], computed in float32 like in validation."""
    import torch
    from torch.nn import functional as F

    losses = F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels), reduction="none")
    result: NDArray[np.float64] = losses.double().numpy()
    return result


def _average(labels: NDArray[np.int64], predicted: NDArray[np.int64], average: str) -> dict[str, float]:
    """Average over classes that have images; a class never predicted counts with precision 0."""
    from sklearn.metrics import precision_recall_fscore_support

    present = np.unique(labels)
    figures = precision_recall_fscore_support(labels, predicted, labels=present, average=average, zero_division=0.0)
    return dict(zip(("precision", "recall", "f1"), map(float, figures[:3]), strict=True))


def _per_class(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: Sequence[str]
) -> tuple[ClassScore, ...]:
    from sklearn.metrics import precision_recall_fscore_support

    count = len(classes)
    every = np.arange(count)
    precision, recall, f1, _ = precision_recall_fscore_support(labels, predicted, labels=every, zero_division=np.nan)
    images, taken = np.bincount(labels, minlength=count), np.bincount(predicted, minlength=count)
    hits = np.bincount(labels[labels == predicted], minlength=count)
    spreads = f1_intervals(hits, taken, images, len(labels))
    return tuple(
        ClassScore(
            name,
            int(images[index]),
            int(taken[index]),
            _defined(precision[index]),
            _defined(recall[index]),
            _defined(f1[index]),
            interval(int(hits[index]), int(taken[index])) if taken[index] else None,
            interval(int(hits[index]), int(images[index])) if images[index] else None,
            spreads[index],
        )
        for index, name in enumerate(classes)
    )


def _defined(figure: float) -> float | None:
    return None if np.isnan(figure) else float(figure)


@dataclass(frozen=True)
class Suspect:
    """Image `index`, which is likely to be of class `suggested`, whose probability exceeds the label's by `margin`."""

    index: int
    suggested: int
    margin: float


def label_errors(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> list[Suspect]:
    """Return the images whose labels int64[N] are likely wrong by probabilities float32[N, C], most likely first.

    This is confident learning (Northcutt, Jiang and Chuang, 2021, JAIR 70). A class's threshold is the mean probability
    that the model gives it on the images with its label. An image on which another class reaches its own threshold, and
    exceeds the label, is counted as that class's. The thresholds compensate for a model that is more confident about
    some classes. The probabilities must come from images that the model was not trained on.
    """
    count = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    images = np.bincount(labels, minlength=count)
    sums = np.bincount(labels, weights=own, minlength=count)
    # a class without images gets an unreachable threshold
    thresholds = np.divide(sums, images, out=np.full(count, np.inf), where=images > 0)
    reached = np.where(probabilities >= thresholds, probabilities, -1.0)
    suggested = reached.argmax(axis=1)
    margins = reached.max(axis=1) - own
    suspects = np.flatnonzero((suggested != labels) & (margins > 0))
    ordered = sorted(suspects.tolist(), key=lambda index: (-margins[index], index))
    return [Suspect(index, int(suggested[index]), float(margins[index])) for index in ordered]
