"""The result of one epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from automl_pt.core.text import one_line
from automl_pt.training.early_stopping import Reason

#: null in JSON, which has no NaN
_MAY_BE_NAN = ("train_loss", "val_loss", "val_accuracy")
_NUMBERS = ("epoch", "lr", "images_per_second", "data_wait", "peak_memory", "seconds")
#: the metrics that have a field of their own
FIELDS = ("loss", "accuracy", "top5")
#: how records name the metrics that have no field here: of the weights, and of their moving average
_RAW, _EMA = "val_", "ema_val_"


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
    #: the objective, by default the validation loss, is the best so far; the first wins ties
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
    #: what the objective makes of the weights that this epoch would keep, the lower the better; None: it is the loss
    cost: float | None = None
    #: whether these weights are the moving average's; None: where its loss is lower
    averaged: bool | None = None
    #: the other metrics of validation by name, such as `macro_f1`, those of plugins among them. Records hold each as
    #: `val_NAME`; one from before a metric existed holds none
    metrics: Mapping[str, float] = field(default_factory=dict, hash=False)
    #: the same of the moving average; records hold each as `ema_val_NAME`
    ema_metrics: Mapping[str, float] = field(default_factory=dict, hash=False)

    def __repr__(self) -> str:
        shown = ("epoch", "train_loss", "val_loss", "val_accuracy", "lr", "seconds", "is_best", "reason")
        return one_line("EpochResult", {name: getattr(self, name) for name in shown})

    def values(self, *, ema: bool = False) -> dict[str, float]:
        """Return every metric by name, `loss` and `accuracy` among them; of the moving average where `ema` is set."""
        if ema:
            own = {"loss": self.ema_val_loss, "accuracy": self.ema_val_accuracy, **self.ema_metrics}
        else:
            own = {"loss": self.val_loss, "accuracy": self.val_accuracy, "top5": self.val_top5, **self.metrics}
        return {name: value for name, value in own.items() if value is not None}

    def keeps_average(self, keep: str = "best") -> bool:
        """Say whether the weights that this epoch would keep are the moving average's."""
        if keep == "last" or self.ema_val_loss is None:
            return False
        return self.averaged if self.averaged is not None else self.ema_val_loss < self.val_loss

    def kept_values(self, keep: str = "best") -> dict[str, float]:
        """Return every metric of the weights that this epoch would keep."""
        return self.values(ema=self.keeps_average(keep))

    @staticmethod
    def from_dict(values: dict[str, Any]) -> EpochResult:
        """Rebuild a result from `to_dict`, or from a line of history.jsonl (null there means NaN).

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


def epochs_disagree(history: Sequence[EpochResult], objective: str, keep: str = "best") -> str | None:
    """Say which epoch the validation loss would have kept, where the objective kept another; None: the same."""
    best = [result for result in history if result.is_best]
    if objective == "val_loss" or keep == "last" or not best:
        return None
    kept, losses = best[-1], {result.epoch: result.kept_values()["loss"] for result in history}
    epoch = min((epoch for epoch, loss in losses.items() if math.isfinite(loss)), key=losses.__getitem__)
    if losses[epoch] >= losses[kept.epoch]:
        return None
    return (
        f"The validation loss is lowest after epoch {epoch}, {losses[epoch]:.4f}; epoch {kept.epoch}, kept by "
        f"{objective}, has {losses[kept.epoch]:.4f}."
    )


def _number(name: str, value: Any) -> float:
    """Return a recorded metric's value; null stands for NaN."""
    if value is None:
        return math.nan
    if type(value) not in (int, float):
        raise ValueError(f"{name[:40]} is {str(value)[:40]!r}, not a number")
    return float(value)
