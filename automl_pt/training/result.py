"""What one epoch gave."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from automl_pt.training.early_stopping import Reason

#: JSON has no word for it, so that null stands for it there
_MAY_BE_NAN = ("train_loss", "val_loss", "val_accuracy")
_NUMBERS = ("epoch", "lr", "images_per_second", "data_wait", "peak_memory", "seconds")
#: the metrics that have a field of their own
FIELDS = ("loss", "accuracy", "top5")
#: how records name the metrics that have no field here: of the weights, and of their moving average
_RAW, _EMA = "val_", "ema_val_"


@dataclass(frozen=True)
class EpochResult:
    """The figures of one epoch. Losses and accuracies are means per image; `epoch` counts from 1.

    Where no images are left to validate on, as in a search's refit, the figures of validation are NaN.
    """

    epoch: int
    train_loss: float
    val_loss: float
    val_accuracy: float
    #: None where there are five classes or fewer
    val_top5: float | None
    #: learning rate of the epoch's last step
    lr: float
    #: trained images per second of the training part
    images_per_second: float
    #: share of the training part spent waiting for batches
    data_wait: float
    #: bytes; of the device on CUDA, else the process's highest resident size
    peak_memory: int
    #: seconds of training and validation
    seconds: float
    #: the lowest validation loss so far; the first wins ties
    is_best: bool
    #: of the moving average of the weights, when there is one
    ema_val_loss: float | None = None
    ema_val_accuracy: float | None = None
    #: set on a run's last epoch: why the run ended
    reason: Reason | None = None
    #: what had to be done differently, e.g. smaller micro-batches after an out-of-memory
    notes: tuple[str, ...] = ()
    #: by what a search compares trials after this epoch, where that is not `val_loss`
    rank_loss: float | None = None
    #: seconds of saving the model and the checkpoint after this epoch; None where that was not recorded
    save_seconds: float | None = None
    #: the other metrics of validation by name, such as `macro_f1`, those of plugins among them. Records hold each as
    #: `val_NAME`; one from before a metric existed holds none
    metrics: Mapping[str, float] = field(default_factory=dict, hash=False)
    #: the same of the moving average; records hold each as `ema_val_NAME`
    ema_metrics: Mapping[str, float] = field(default_factory=dict, hash=False)

    def values(self, *, ema: bool = False) -> dict[str, float]:
        """Return every metric by name, `loss` and `accuracy` among them; of the moving average where `ema` is set."""
        if ema:
            own = {"loss": self.ema_val_loss, "accuracy": self.ema_val_accuracy, **self.ema_metrics}
        else:
            own = {"loss": self.val_loss, "accuracy": self.val_accuracy, "top5": self.val_top5, **self.metrics}
        return {name: value for name, value in own.items() if value is not None}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> EpochResult:
        """Make a result again from what `to_dict` gave, or from a line of history.jsonl (null there means NaN).

        Raises ValueError, KeyError or TypeError for anything else.
        """
        for name in (*_MAY_BE_NAN, *_NUMBERS):
            if type(values[name]) not in (int, float) and not (values[name] is None and name in _MAY_BE_NAN):
                raise ValueError(f"{name} is {str(values[name])[:40]!r}, not a number")
        losses = {key: math.nan if values[key] is None else values[key] for key in _MAY_BE_NAN}
        known = {one.name for one in fields(EpochResult)}
        more = {name: _number(name, value) for name, value in values.items() if name not in known}
        raw, ema = ({n.removeprefix(p): v for n, v in more.items() if n.startswith(p)} for p in (_RAW, _EMA))
        if len(raw) + len(ema) < len(more):
            raise ValueError(f"{', '.join(sorted(more))[:100]}: not what an epoch's record holds")
        own = {name: value for name, value in values.items() if name in known}
        return EpochResult(**{**own, **losses, "notes": tuple(values["notes"]), "metrics": raw, "ema_metrics": ema})

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON, each further metric as an entry of its own."""
        own = asdict(self)
        named = ((_RAW, own.pop("metrics")), (_EMA, own.pop("ema_metrics")))
        return {**own, **{prefix + name: value for prefix, found in named for name, value in found.items()}}


def _number(name: str, value: Any) -> float:
    """Return a recorded metric's value; null stands for NaN."""
    if value is None:
        return math.nan
    if type(value) not in (int, float):
        raise ValueError(f"{name[:40]} is {str(value)[:40]!r}, not a number")
    return float(value)
