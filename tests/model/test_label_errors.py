"""Confident learning finds labels that were made wrong, and leaves right ones alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl_pt.model.scoring import Suspect, label_errors


def test_the_example_in_the_rule() -> None:
    probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.1, 0.9], [0.05, 0.95]], np.float32)
    labels = np.array([0, 0, 1, 1, 0], np.int64)
    # thresholds: class 0 (0.9 + 0.7 + 0.05) / 3 = 0.55, class 1 (0.8 + 0.9) / 2 = 0.85
    assert label_errors(probabilities, labels) == [Suspect(4, 1, pytest.approx(0.9))]


def test_a_class_without_images_is_never_suggested() -> None:
    probabilities = np.array([[0.1, 0.1, 0.8], [0.1, 0.2, 0.7]], np.float32)
    assert label_errors(probabilities, np.array([0, 1], np.int64)) == []


@given(st.integers(0, 10_000))
def test_planted_errors_come_first(seed: int) -> None:
    generator = np.random.default_rng(seed)
    true = np.arange(200) % 4
    probabilities = generator.dirichlet(np.ones(4), 200).astype(np.float32) * 0.4
    probabilities[np.arange(200), true] += 0.6
    labels = true.copy()
    planted = generator.choice(200, 10, replace=False)
    labels[planted] = (labels[planted] + 1) % 4
    found = label_errors(probabilities, labels)
    own = probabilities[np.arange(200), true]
    thresholds = [probabilities[labels == label, label].mean() for label in range(4)]
    assert {one.index for one in found} == {index for index in planted if own[index] >= thresholds[true[index]]}
    assert all(one.suggested == true[one.index] for one in found)
    assert [one.margin for one in found] == sorted((one.margin for one in found), reverse=True)
