"""A metric of validation: how it is computed from the predictions of an epoch, and how it is shown."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


@dataclass(frozen=True)
class Predictions:
    """What a model predicts for all N images of the validation split; all tensors are on the CPU.

    `labels` and `predicted` are class indices int64[N]. An image whose scores are not finite has no predicted class;
    `predicted` is then `classes`, which is no index. `losses` float64[N] are the cross-entropies. `ranks` int64[N]
    count the classes that are scored above the true one, so 0 is a correct prediction.
    """

    labels: Tensor
    predicted: Tensor
    losses: Tensor
    ranks: Tensor
    classes: int

    @cached_property
    def support(self) -> Tensor:
        """Return how many images each class has, int64[classes]."""
        return self._count(self.labels)

    @cached_property
    def predicted_counts(self) -> Tensor:
        """Return how many images are predicted to be of each class, int64[classes]."""
        return self._count(self.predicted)

    @cached_property
    def correct(self) -> Tensor:
        """Return how many images of each class are predicted correctly, int64[classes]."""
        return self._count(self.labels[self.labels == self.predicted])

    def confusion(self) -> Tensor:
        """Return int64[classes, classes]: images by true class (rows) and predicted class (columns).

        It takes classes x classes numbers; with thousands of classes prefer the three counts by class.
        """
        width = self.classes + 1
        cells = (self.labels * width + self.predicted).bincount(minlength=self.classes * width)
        return cells.view(self.classes, width)[:, :-1]

    def _count(self, indices: Tensor) -> Tensor:
        return indices.bincount(minlength=self.classes + 1)[: self.classes]


@dataclass(frozen=True)
class Metric:
    """A figure of validation that is computed after every epoch.

    It is recorded as `val_NAME`, in the history, JSON lines, trackers and the model's record, and shown wherever the
    accuracy is. A record without it, such as one from before the metric existed, shows "-" and is never compared.
    """

    #: small letters, digits and underscores
    name: str
    #: of the predictions: the value; None where the metric does not exist, such as top-5 accuracy of three classes
    compute: Callable[[Predictions], float | None]
    #: as people read it; default: made from the name
    label: str = ""
    #: whether a higher or a lower value is better
    direction: Literal["max", "min"] = "max"
    #: a share lies between 0 and 1; people read it as per cent
    format: Literal["share", "number"] = "share"
    #: whether tables have a column for it; records hold it in any case
    has_column: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ValueError(f"a metric's name has small letters, digits and underscores, got {self.name!r}")
        if self.direction not in ("max", "min"):
            raise ValueError(f"the direction of the metric {self.name} is max or min, got {self.direction!r}")
        if not self.label:
            object.__setattr__(self, "label", self.name.replace("_", " "))

    def text(self, value: float | None) -> str:
        """Write a share as per cent with one decimal, a number in four decimals, an exploded one in three digits."""
        if value is None:
            return "-"
        if self.format == "share" and math.isfinite(value):
            return f"{100 * value:.1f} %"
        return f"{value:.3g}" if math.isfinite(value) and abs(value) >= 1000 else f"{value:.4f}"

    def cost(self, value: float) -> float:
        """Return the value as something to minimise, so that epochs and trials are ordered alike by any metric."""
        return -value if self.direction == "max" else value

    def is_better(self, value: float, than: float) -> bool:
        """Say whether `value` is strictly better."""
        return self.cost(value) < self.cost(than)


def _unknown(found: Predictions) -> float | None:
    """Stand for the function of a metric whose plugin is not here: only recorded values of it are shown."""
    return None


def columns(recorded: Iterable[str], known: Mapping[str, Metric]) -> list[Metric]:
    """Return the metrics of `recorded` names that tables show, known ones first, in their own order.

    An unknown name belongs to a plugin that is not loaded; it is shown by its name, as the recorded number.
    """
    names = set(recorded)
    found = [metric for name, metric in known.items() if name in names]
    found += [Metric(name, _unknown, format="number") for name in sorted(names - set(known)) if _NAME.fullmatch(name)]
    return [metric for metric in found if metric.has_column]
