"""The recorded step: on a CPU the same static tensors without a recording; on CUDA against the plain step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_trainer import MEAN, STD, figures, network, same, settings, training

from automl_pt.data.device_split import DeviceSplit
from automl_pt.training.checkpoint import Checkpoints
from automl_pt.training.cuda.graph import WARM_UP, GraphedStep, why_not
from automl_pt.training.loop import train


def run_again(work: Callable[[], None]) -> Callable[[], None]:
    """Stand in for a recording: trial runs first, as CUDA needs them, then the work itself at each replay."""
    for _ in range(WARM_UP):
        work()
    return work


def static(**changes: Any) -> Any:
    ours = training(settings(**changes), network(dropout=0.3))
    ours.take_step = GraphedStep(ours.step, ours.train_loader.batch_sizes[0], run_again)
    return ours


@pytest.mark.parametrize(
    "changes", [{}, {"clip_grad_norm": 0.1}, {"schedule": "step", "epochs": 4}, {"momentum": 0.0}, {"ema_decay": 0.9}]
)
def test_static_tensors_change_nothing(changes: dict[str, Any]) -> None:
    # 23 images in batches of 4: the last batch of an epoch is odd, and taken by the plain step
    plain = training(settings(augment="early", **changes), network(dropout=0.3))
    expected = list(train(plain))
    ours = static(augment="early", **changes)
    found = list(train(ours))
    assert [figures(result)[:2] for result in found] == [
        (epoch, pytest.approx(loss, rel=1e-5)) for epoch, loss, *_ in map(figures, expected)
    ]
    for name, value in plain.model.state_dict().items():
        assert torch.allclose(ours.model.state_dict()[name], value, atol=1e-6), name


def by_index(*, channels_last: bool = False, static: bool = True, **changes: Any) -> Any:
    """Return a training whose batches are made from indices by tensors alone, within the step where it is `static`."""
    ours = training(settings(augment="early", **changes), network(dropout=0.3))
    loader = ours.train_loader
    images = torch.from_numpy(np.asarray(loader.images))
    rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    shuffled = torch.empty_like(images)
    shuffled[rows] = images
    split = DeviceSplit(shuffled, rows, loader.labels, mean=MEAN, std=STD, channels_last=channels_last)
    loader.resident = split
    if static:
        ours.by_index, ours.take_step = True, GraphedStep(ours.step, 4, run_again, split.batch)
    return ours


@pytest.mark.parametrize("channels_last", [False, True])
def test_batches_made_within_the_step_change_nothing(channels_last: bool) -> None:
    expected = training(settings(augment="early"), network(dropout=0.3))
    outside = by_index(channels_last=channels_last, static=False)
    inside = by_index(channels_last=channels_last)
    results = [list(train(one)) for one in (expected, outside, inside)]
    for result in results[1:]:
        assert [figures(one)[1] for one in result] == pytest.approx([figures(one)[1] for one in results[0]], rel=1e-4)
    for name, value in expected.model.state_dict().items():
        for ours in (outside, inside):
            assert torch.allclose(ours.model.state_dict()[name], value, atol=1e-5), name


def test_a_run_by_index_goes_on_within_an_epoch(tmp_path: Path) -> None:
    capturable_step, checkpoints = by_index(), Checkpoints(tmp_path)
    list(train(capturable_step))
    list(train(by_index(), checkpoints=checkpoints, after_step=lambda done, batches: done == 2))
    second = by_index()
    second.restore(checkpoints)
    assert second.progress.batches_done == 2
    list(train(second, checkpoints=checkpoints))
    assert same(second.model, capturable_step.model)


def test_a_recorded_run_is_resumed(tmp_path: Path) -> None:
    capturable_step = static()
    list(train(capturable_step))
    checkpoints = Checkpoints(tmp_path)
    generator = train(static(), checkpoints=checkpoints)
    next(generator)
    generator.close()  # type: ignore[attr-defined]
    second = static()
    second.restore(checkpoints)
    list(train(second, checkpoints=checkpoints))
    assert same(second.model, capturable_step.model)


def test_what_cannot_be_recorded_is_taken_step_by_step_and_told() -> None:
    def refuses(work: Callable[[], None]) -> Callable[[], None]:
        work()  # a trial run that must leave no trace
        raise RuntimeError("operation not permitted when stream is capturing\nmore lines")

    plain = training(settings(), network(dropout=0.3))
    list(train(plain))
    ours = training(settings(), network(dropout=0.3))
    ours.take_step = GraphedStep(ours.step, 4, refuses)
    results = list(train(ours))
    assert same(ours.model, plain.model)
    assert results[0].notes == (
        "steps are not recorded as a CUDA graph but run one by one: operation not permitted when stream is capturing",
    )


def test_a_cpu_records_nothing() -> None:
    ours = training(settings())
    assert why_not(ours.step) == "only CUDA devices record graphs"
    assert ours.take_step is ours.step


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"precision": "fp16"}, "scaler"),
        ({"micro_batch_size": 2}, "micro-batches"),
        ({}, None),
    ],
)
def test_what_keeps_a_step_from_being_recorded(change: dict[str, Any], reason: str | None) -> None:
    step = training(settings()).step
    step.device = torch.device("cuda")
    for name, value in change.items():
        setattr(step, name, value)
    found = why_not(step)
    assert found is None if reason is None else found is not None and reason in found


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_recorded_step_equals_the_plain_one_on_cuda() -> None:
    from test_trainer import pixels

    from automl_pt.data.loader import Loader
    from automl_pt.dataset import Hints
    from automl_pt.training.loop import Training

    device, models = torch.device("cuda", 0), []
    for cuda_graph in (False, True):
        config = settings(cuda_graph=cuda_graph)
        shared: dict[str, Any] = {"mean": MEAN, "std": STD, "seed": 1, "device": device, "hints": Hints()}
        loaders = (
            Loader(pixels(23), batch_size=4, augmented_epochs=1, shuffle=True, **shared),
            Loader(pixels(10, seed=1), batch_size=4, augmented_epochs=0, shuffle=False, **shared),
        )
        ours = Training(network().to(device), *loaders, config, device=device, precision="fp32")
        results = list(train(ours))
        assert all(result.notes == () for result in results)
        models.append({name: value.cpu() for name, value in ours.model.state_dict().items()})
    for name, value in models[0].items():
        assert torch.allclose(models[1][name], value, atol=1e-4), name
