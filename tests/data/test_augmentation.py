from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from automl_pt.data.augmentation import gather, make_batch, make_plan, shift_into
from automl_pt.data.pixels import Rows
from automl_pt.images.preprocessing import normalise, scale_and_offset

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 3, 16, 16), dtype=np.uint8)
MEAN, STD = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.5, 0.6])


def plain(image: np.ndarray, down: int, right: int, flip: bool) -> np.ndarray:
    """Pad by reflection, cut the window out, mirror it: the same with numpy's own padding."""
    side, edge = image.shape[-1], 5
    padded = np.pad(image, ((0, 0), (edge, edge), (edge, edge)), mode="reflect")
    moved = padded[:, edge - down : edge - down + side, edge - right : edge - right + side]
    return moved[:, :, ::-1] if flip else moved


@given(st.integers(-5, 5), st.integers(-5, 5), st.booleans())
def test_a_shift_equals_padding_by_reflection(down: int, right: int, flip: bool) -> None:
    target = np.zeros_like(IMAGES[0])
    shift_into(target[:, :, ::-1] if flip else target, IMAGES[0], down, right)
    assert (target == plain(IMAGES[0], down, right, flip)).all()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("as_rows", [False, True])
def test_gathering_equals_the_plain_loop_and_the_batch_made_on_a_device(channels_last: bool, as_rows: bool) -> None:
    plan = make_plan(20, seed=3, epoch=1, max_shift=2, flip=True, shuffle=True)
    rows = np.arange(20)[::-1].copy()
    images = Rows(IMAGES, rows) if as_rows else IMAGES
    whole = IMAGES[rows] if as_rows else IMAGES
    chosen = plan.order[:9]
    ours = gather(images, chosen, plan.shifts[chosen], plan.flips[chosen], channels_last=channels_last)
    wanted = np.stack([plain(whole[i], *plan.shifts[i].tolist(), plan.flips[i]) for i in chosen])
    assert (ours == wanted).all()
    indices = torch.from_numpy(chosen)
    shifts, flips = torch.from_numpy(plan.shifts)[indices], torch.from_numpy(plan.flips)[indices]
    stored = torch.from_numpy(whole).permute(0, 2, 3, 1).contiguous()
    factors = scale_and_offset((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    batch = make_batch(stored, indices, shifts, flips, *factors, channels_last=channels_last)
    assert batch.equal(normalise(torch.from_numpy(ours), *factors))
    exact = (torch.from_numpy(wanted) / 255 - MEAN[:, None, None]) / STD[:, None, None]
    assert torch.allclose(batch, exact, atol=1e-6)
    assert batch.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(-(2**70), 2**70), st.integers(0, 1000))
def test_an_images_draws_depend_on_seed_epoch_and_index_alone(few: int, more: int, seed: int, epoch: int) -> None:
    small, large = (
        make_plan(count, seed=seed, epoch=epoch, max_shift=3, flip=True, shuffle=True) for count in (few, few + more)
    )
    assert (small.shifts == large.shifts[:few]).all()
    assert (small.flips == large.flips[:few]).all()
    assert (small.order == [index for index in large.order if index < few]).all()


def test_the_plan_is_the_same_on_every_machine() -> None:
    plan = make_plan(6, seed=1, epoch=1, max_shift=8, flip=True, shuffle=True)
    assert plan.order.tolist() == [0, 3, 5, 4, 1, 2]
    assert plan.shifts.tolist() == [[0, 6], [6, -2], [-8, 6], [-4, -2], [-8, 0], [-3, -1]]
    assert plan.flips.tolist() == [False, True, True, False, True, True]


def test_shifts_and_flips_are_spread_evenly_and_turned_off_on_demand() -> None:
    plan = make_plan(40_000, seed=1, epoch=1, max_shift=2, flip=True, shuffle=True)
    for axis in (0, 1):
        counts = np.bincount(plan.shifts[:, axis] + 2, minlength=5)
        assert len(counts) == 5
        assert abs(counts / 40_000 - 0.2).max() < 0.01
    assert abs(np.corrcoef(plan.shifts[:, 0], plan.shifts[:, 1])[0, 1]) < 0.02
    assert abs(plan.flips.mean() - 0.5) < 0.01
    off = make_plan(100, seed=1, epoch=1, max_shift=0, flip=False, shuffle=False)
    assert not off.shifts.any()
    assert not off.flips.any()
    assert (off.order == np.arange(100)).all()


def test_seeds_and_epochs_give_other_plans() -> None:
    orders = {
        tuple(make_plan(50, seed=seed, epoch=epoch, max_shift=0, flip=False, shuffle=True).order.tolist())
        for seed in (1, 2)
        for epoch in (1, 2, 3)
    }
    assert len(orders) == 6
