from __future__ import annotations

import pytest
import torch
from test_trainer import network, settings, training
from torch import nn

from automl_pt.training.loop import train
from automl_pt.training.memory import BACKWARD, bytes_per_image, images_that_fit, probed, try_out
from automl_pt.training.step import Step


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
    few, many = (images_that_fit(probed(network(), 8), free) for free in (100_000, 10_000_000))
    assert 1 <= few < many
    assert images_that_fit(probed(network(), 8), 0) == 1


def test_a_batch_that_does_not_fit_is_cut_before_the_first_step() -> None:
    ours = training(settings(batch_size=8))
    ours.fit_into(free=20_000)
    limit = ours.step.micro_batch_size
    assert limit is not None
    assert limit < 8
    results = list(train(ours))
    assert f"continuing with {limit} at once" in results[0].notes[0]
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


class Greedy(nn.Module):
    """A network that has memory for `limit` images at a time, as the CPU's allocator says it when it has no more."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.inner, self.limit = network(dropout=0.3), limit

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > self.limit:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        logits: torch.Tensor = self.inner(images)
        return logits


@pytest.mark.parametrize(("limit", "expected"), [(8, None), (7, 4), (2, 2), (1, 1)])
def test_trying_a_step_out_cuts_the_batch_and_leaves_no_trace(limit: int, expected: int | None) -> None:
    ours = training(settings(batch_size=8), Greedy(limit) if limit > 1 else Greedy(1).eval())
    before, state = {name: value.clone() for name, value in ours.model.state_dict().items()}, torch.get_rng_state()
    assert try_out(ours.step, 8, 8) == 0
    assert ours.step.micro_batch_size == expected
    assert len(ours.step.notes) == {None: 0, 4: 1, 2: 2, 1: 3}[expected]
    assert all(torch.equal(value, before[name]) for name, value in ours.model.state_dict().items())
    assert all(not momentum.any() for momentum in ours.step.optimizer.buffers)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.gpu
def test_a_gpu_with_little_memory_takes_the_batch_in_parts() -> None:
    device = torch.device("cuda", 0)
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 3)
    )
    step = Step(model.to(device), settings(), device=device, precision="fp32")
    peak = try_out(step, 64, 128)
    assert step.micro_batch_size is None
    assert peak > 64 * 64 * 128 * 128 * 4
    total = torch.cuda.mem_get_info(device)[1]
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(peak / 2 / total, device)
    try:
        assert try_out(step, 64, 128) < peak
        assert step.micro_batch_size is not None
        assert step.micro_batch_size < 64
        assert "out of memory with 64 images at once" in step.notes[0]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
