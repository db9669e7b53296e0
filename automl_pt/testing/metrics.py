"""The contract of a metric: invented predictions, from perfect to worthless, and what a metric may make of them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from automl_pt.core.errors import PluginError
from automl_pt.plugins.faults import described
from automl_pt.plugins.manager import Plugins, load_plugins
from automl_pt.plugins.metrics import Metric, Predictions
from automl_pt.testing.contract import expect
from automl_pt.training.evaluation import predictions

IMAGES = 60
#: relative difference that another order of the images may make: sums of floats depend on it
ROUNDING = 1e-9


def check_metric(metric: Metric | str, *, plugins: Plugins | None = None) -> None:
    """Check a metric, or the registered one of that name; raise PluginError for the first rule that it breaks.

    A metric returns a finite number or None for any predictions, of two classes or of a thousand, also where classes
    have no images; NaN is allowed where losses are not finite. It is the same number for the same images in any order,
    and better for perfect predictions than for wrong ones. It changes neither the predictions nor the state of random
    numbers.
    """
    if isinstance(metric, str):
        known = (plugins or load_plugins()).metrics()
        given = f"{metric}; registered are {', '.join(known)}"
        expect(metric in known, "a metric of this name is registered", came=given, look="the hook register_metrics")
        metric = known[metric]
    for case, found in cases().items():
        _check_case(metric, case, found)
    _check_direction(metric)


def cases() -> dict[str, Predictions]:
    """Return the invented predictions by what they are."""
    generator = torch.Generator().manual_seed(1)

    def scores(classes: int) -> Tensor:
        return torch.randn(IMAGES, classes, generator=generator)

    def labels(classes: int) -> Tensor:
        return torch.randint(classes, (IMAGES,), generator=generator)

    broken = scores(7)
    broken[::3] = math.nan
    return {
        "random scores of 2 classes": predictions(scores(2), labels(2)),
        "random scores of 7 classes": predictions(scores(7), labels(7)),
        "1,000 classes, most without images": predictions(scores(1000), labels(1000)),
        "one class that is always predicted": predictions(torch.eye(7)[torch.zeros(IMAGES).long()], labels(7)),
        "scores that are not finite": predictions(broken, labels(7)),
    }


def graded() -> Iterator[Predictions]:
    """Yield perfect predictions, then wrong ones for all images."""
    labels = torch.arange(IMAGES) % 7
    yield predictions(9 * torch.eye(7)[labels], labels)
    yield predictions(9 * torch.eye(7)[(labels + 1) % 7], labels)


def _check_case(metric: Metric, case: str, found: Predictions) -> None:
    before = [tensor.clone() for tensor in _tensors(found)]
    state = torch.get_rng_state()
    value = _value(metric, case, found)
    unchanged = all(map(torch.equal, map(torch.nan_to_num, before), map(torch.nan_to_num, _tensors(found))))
    _expect(metric, unchanged, "does not change the predictions", case, "they are others afterwards")
    same_state = torch.equal(state, torch.get_rng_state())
    _expect(metric, same_state, "does not draw random numbers of PyTorch's generator", case, "its state is another")
    _expect(metric, _equal(_value(metric, case, found), value), "gives the same value again", case, f"first {value}")
    turned = _value(metric, case, _in_order(found, torch.arange(IMAGES).flip(0)))
    _expect(metric, _equal(turned, value), "does not depend on the order of images", case, f"{value} and {turned}")
    if value is not None and math.isfinite(value) and metric.format == "share":
        _expect(metric, 0 <= value <= 1, "lies between 0 and 1, or has format 'number'", case, str(value))


def _check_direction(metric: Metric) -> None:
    best, worst = (_value(metric, "perfect and wrong predictions", found) for found in graded())
    if best is None or worst is None:
        return
    rule = f"is better for perfect predictions than for wrong ones, with direction {metric.direction!r}"
    _expect(metric, metric.is_better(best, worst), rule, "perfect and wrong predictions", f"{best} and {worst}")


def _value(metric: Metric, case: str, found: Predictions) -> float | None:
    try:
        value = metric.compute(found)
    except (Exception, SystemExit) as error:
        rule = f"the metric {metric.name} takes any predictions"
        raise PluginError(rule, given=f"{case}: {described(error)}", remedy="the metric's compute") from error
    number = value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    finite = not number or value is None or math.isfinite(value) or not torch.isfinite(found.losses).all()
    _expect(metric, number and finite, "returns a finite number or None", case, repr(value)[:200])
    return None if value is None else float(value)


def _expect(metric: Metric, held: bool, rule: str, case: str, came: str) -> None:
    expect(held, f"the metric {metric.name} {rule}", came=f"{case}: {came}", look="the metric's compute")


def _equal(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    return math.isclose(one, other, rel_tol=ROUNDING, abs_tol=ROUNDING)


def _tensors(found: Predictions) -> tuple[Tensor, ...]:
    return found.labels, found.predicted, found.losses, found.ranks


def _in_order(found: Predictions, order: Tensor) -> Predictions:
    labels, predicted, losses, ranks = (tensor[order] for tensor in _tensors(found))
    return Predictions(labels, predicted, losses, ranks, found.classes)
