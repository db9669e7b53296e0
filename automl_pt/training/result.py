"""The result of one epoch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from automl_pt.training.early_stopping import Reason

#: null in JSON, which has no NaN
_MAY_BE_NAN = ("train_loss", "val_loss", "val_accuracy")
_NUMBERS = ("epoch", "lr", "images_per_second", "data_wait", "peak_memory", "seconds")


@dataclass(frozen=True)
class EpochResult:
    """The figures of one epoch. Losses and accuracies are means per image; `epoch` counts from 1.

    Without validation images, as in a search's refit, the validation figures are NaN.
    """

    epoch: int
    train_loss: float
    val_loss: float
    val_accuracy: float
    #: None for five classes or fewer
    val_top5: float | None
    #: learning rate of the epoch's last step
    lr: float
    #: trained images per second of the training part
    images_per_second: float
    #: share of the training part spent waiting for batches
    data_wait: float
    #: bytes; of the device on CUDA, else the process's peak resident memory
    peak_memory: int
    #: seconds of training and validation
    seconds: float
    #: the lowest validation loss so far; the first wins ties
    is_best: bool
    #: of the moving average of the weights, if there is one
    ema_val_loss: float | None = None
    ema_val_accuracy: float | None = None
    #: why the run ended; set on its last epoch
    reason: Reason | None = None
    #: deviations, such as smaller micro-batches after memory ran out
    notes: tuple[str, ...] = ()
    #: the ranking loss by which a search compares trials after this epoch, if it is not `val_loss`
    rank_loss: float | None = None
    #: seconds of saving the model and the checkpoint after this epoch; None if not recorded
    save_seconds: float | None = None

    @staticmethod
    def from_dict(values: dict[str, Any]) -> EpochResult:
        """Rebuild a result from `to_dict`, or from a line of history.jsonl (null there means NaN).

        Raises ValueError, KeyError or TypeError for anything else.
        """
        for name in (*_MAY_BE_NAN, *_NUMBERS):
            if type(values[name]) not in (int, float) and not (values[name] is None and name in _MAY_BE_NAN):
                raise ValueError(f"{name} is {str(values[name])[:40]!r}, not a number")
        losses = {key: math.nan if values[key] is None else values[key] for key in _MAY_BE_NAN}
        return EpochResult(**{**values, **losses, "notes": tuple(values["notes"])})

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return asdict(self)
