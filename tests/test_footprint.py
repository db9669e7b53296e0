from __future__ import annotations

import pytest
import torch
from test_trainer import network, settings, training
from torch import nn

from automl_pt.training.footprint import BACKWARD, bytes_per_image, images_that_fit
from automl_pt.training.trainer import train


def test_what_a_step_keeps_is_counted_by_image() -> None:
    model = nn.Sequential(nn.Linear(10, 1000), nn.ReLU(), nn.Linear(1000, 3))
    # 10 inputs, and the 1000 outputs of ReLU, which both it and the layer after it keep: once
    assert bytes_per_image(model, torch.zeros(8, 10)) == pytest.approx(BACKWARD * 4 * (10 + 1000))


def test_probing_leaves_no_trace() -> None:
    model = network(dropout=0.5)
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    bytes_per_image(model, torch.ones(2, 3, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_more_memory_takes_more_images() -> None:
    few, many = (images_that_fit(network(), 8, free) for free in (100_000, 10_000_000))
    assert 1 <= few < many
    assert images_that_fit(network(), 8, 0) == 1


def test_a_batch_that_does_not_fit_is_cut_before_the_first_step() -> None:
    ours = training(settings(batch_size=8))
    ours.fit_into(free=20_000)
    limit = ours.step.micro_batch_size
    assert limit is not None
    assert limit < 8
    results = list(train(ours))
    assert f"going on with {limit} at once" in results[0].notes[0]
    expected = training(settings(batch_size=8, micro_batch_size=limit))
    assert [r.val_loss for r in train(expected)] == [r.val_loss for r in results]


def test_a_batch_that_fits_stays_as_it_is() -> None:
    ours = training(settings(batch_size=8))
    ours.fit_into(free=2**33)
    assert ours.step.micro_batch_size is None
    assert ours.step.notes == []


def test_unknown_memory_changes_nothing() -> None:
    ours = training(settings(batch_size=8))
    ours.fit_into(free=0)
    assert ours.step.micro_batch_size is None
