"""The table of built-in metrics. To add one, add an entry here: everything that records or shows metrics reads this."""

from __future__ import annotations

from typing import TYPE_CHECKING

from automl_pt.plugins.hookspecs import hookimpl
from automl_pt.plugins.metrics import Metric, Predictions

if TYPE_CHECKING:
    from torch import Tensor


def _loss(found: Predictions) -> float:
    return found.losses.mean().item()


def _accuracy(found: Predictions) -> float:
    return (found.ranks == 0).double().mean().item()


def _top5(found: Predictions) -> float | None:
    return (found.ranks < 5).double().mean().item() if found.classes > 5 else None


def _macro_f1(found: Predictions) -> float:
    return _mean_of_present(found, 2 * found.correct.double() / (found.support + found.predicted_counts))


def _balanced_accuracy(found: Predictions) -> float:
    return _mean_of_present(found, found.correct.double() / found.support)


def _mean_of_present(found: Predictions, by_class: Tensor) -> float:
    """Average over the classes that have images, as `automl-pt evaluate` does."""
    return by_class[found.support > 0].mean().item()


METRICS = (
    Metric("loss", _loss, direction="min", format="number"),
    Metric("accuracy", _accuracy),
    Metric("top5", _top5, label="top-5 accuracy", has_column=False),
    Metric("macro_f1", _macro_f1, label="macro F1"),
    Metric("balanced_accuracy", _balanced_accuracy),
)
BY_NAME = {metric.name: metric for metric in METRICS}


@hookimpl
def register_metrics() -> list[Metric]:
    """Offer the table."""
    return list(METRICS)
