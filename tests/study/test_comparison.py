"""What the comparison of the two best models says where accuracy and loss order them differently."""

from __future__ import annotations

import numpy as np
import pytest

from automl_pt.api.classifier_objective import accuracies
from automl_pt.model.labelled import Scored
from automl_pt.study.records import ModelComparison


def scored(logits: list[list[float]], labels: list[int]) -> Scored:
    names = tuple(map(str, range(len(labels))))
    return Scored(names, np.array(logits, np.float32), np.array(labels, np.int64), ())


def test_scaled_losses_are_measured_where_the_orders_differ() -> None:
    labels = [0, 1, 0, 1]
    modest = scored([[1, 0], [0, 1], [1, 0], [0.2, 0]], labels)  # 3 of 4, and never sure of it
    sure = scored([[20, 0], [0, 20], [20, 0], [0, 0.1]], labels)
    proud = scored([[20, 0], [0, 20], [0, 20], [0, 20]], labels)  # 3 of 4, and sure of the wrong one
    assert accuracies(sure, modest) == {"best_accuracy": 1.0, "runner_up_accuracy": 0.75}
    assert accuracies(modest, proud) == {"best_accuracy": 0.75, "runner_up_accuracy": 0.75}
    found = accuracies(modest, sure)
    assert found["best_scaled_loss"] > found["runner_up_scaled_loss"]


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({}, None),
        ({"best_accuracy": 0.8, "runner_up_accuracy": 0.8}, None),
        (
            {"best_accuracy": 0.8, "runner_up_accuracy": 0.825},
            "the validation loss decides, but trial 4 is right on more images (82.5 % against 80.0 %)",
        ),
        (
            {"best_accuracy": 0.8, "runner_up_accuracy": 0.9, "best_scaled_loss": 0.5, "runner_up_scaled_loss": 0.4},
            "the validation loss decides, but trial 4 is right on more images (90.0 % against 80.0 %); with a "
            "temperature fitted to each the losses are 0.5000 and 0.4000, so that the order by loss changes",
        ),
    ],
)
def test_other_orders_are_said(figures: dict[str, float], expected: str | None) -> None:
    plain = {"best": 1, "runner_up": 4, "difference": 0.1, "standard_error": 0.1, "images": 40, "inside_noise": True}
    assert ModelComparison.from_dict({**plain, **figures, "of_a_later_version": 1}).disagreement() == expected
