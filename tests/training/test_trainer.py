"""The training loop against plain PyTorch written out here, and against itself when it is interrupted."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from automl_pt.config import TrainConfig
from automl_pt.core.seeds import derive_seed
from automl_pt.data.loader import Loader
from automl_pt.data.prepare import Pixels
from automl_pt.dataset import Hints
from automl_pt.images.preprocessing import scale_and_offset
from automl_pt.training.checkpoint import Checkpoints
from automl_pt.training.loop import Training, train, train_mode
from automl_pt.training.result import EpochResult
from automl_pt.training.schedule import lr_factor

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
CPU = torch.device("cpu")


def pixels(count: int, classes: int = 3, seed: int = 0) -> Pixels:
    """Make `count` noisy 8 px images whose brightness tells their class."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = random.integers(0, 120, (count, 3, 8, 8)) + (labels * 120 // classes)[:, None, None, None]
    return Pixels(images.astype(np.uint8), labels.astype(np.int64), tuple(f"{index}.png" for index in range(count)))


def network(norm: bool = True, dropout: float = 0.0, classes: int = 3) -> nn.Module:
    torch.manual_seed(3)
    layers = [
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6) if norm else nn.Identity(),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(dropout),
    ]
    return nn.Sequential(*layers, nn.Linear(6 * 36, classes))


def training(config: TrainConfig, model: nn.Module | None = None, count: int = 23, classes: int = 3) -> Training:
    shared: dict[str, Any] = {"mean": MEAN, "std": STD, "seed": config.seed, "device": CPU, "hints": Hints()}
    train_loader = Loader(
        pixels(count, classes),
        batch_size=config.batch_size,
        augmented_epochs=config.augmented_epochs,
        shuffle=True,
        **shared,
    )
    val_loader = Loader(pixels(10, classes, seed=1), batch_size=4, augmented_epochs=0, shuffle=False, **shared)
    module = model if model is not None else network(classes=classes)
    return Training(module, train_loader, val_loader, config, device=CPU, precision="fp32")


def settings(**changes: Any) -> TrainConfig:
    return TrainConfig(**{"dataset": "drawn", "epochs": 3, "batch_size": 4, "lr": 0.05, "augment": "none", **changes})


def same(first: nn.Module, second: nn.Module) -> bool:
    other = second.state_dict()
    return all(torch.equal(value, other[name]) for name, value in first.state_dict().items())


@pytest.mark.parametrize("schedule", ["constant", "step", "polynomial", "cosine"])
def test_equal_bit_for_bit_to_a_plain_loop(schedule: str) -> None:
    config = settings(schedule=schedule, warmup_epochs=1)
    ours = training(config)
    results = list(train(ours))

    model, data, val = network(), pixels(23), pixels(10, seed=1)
    scale, offset = scale_and_offset(MEAN, STD)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=config.lr, momentum=0.9, nesterov=True, weight_decay=1e-4, fused=True
    )
    batches, step = ours.train_loader.batch_sizes, 0
    for epoch in range(1, 4):
        order, total = torch.from_numpy(ours.train_loader.plan(epoch).order), 0.0
        model.train()
        for indices in order.split(batches):
            images = torch.from_numpy(data.images)[indices].float() * scale + offset
            labels = torch.from_numpy(data.labels)[indices]
            factor = lr_factor(schedule, step, steps_per_epoch=len(batches), epochs=3, warmup_epochs=1)
            optimizer.param_groups[0]["lr"] = config.lr * factor
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total, step = total + loss.item() * len(labels), step + 1
        model.eval()
        with torch.inference_mode():
            images = torch.from_numpy(val.images).float() * scale + offset
            logits, labels = model(images), torch.from_numpy(val.labels)
        assert results[epoch - 1].train_loss == pytest.approx(total / 23, rel=1e-12)
        assert results[epoch - 1].val_loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-6)
        assert results[epoch - 1].val_accuracy == (logits.argmax(1) == labels).double().mean().item()
    assert same(ours.model, model)


def test_every_image_is_trained_on_and_a_last_batch_of_one_is_joined() -> None:
    ours = training(settings(batch_size=11))
    assert ours.train_loader.batch_sizes == [11, 12]
    assert list(train(ours))[-1].reason == "completed"


def test_losses_are_means_per_image_not_of_batches() -> None:
    ours = training(settings(epochs=1, batch_size=20, lr=1e-30))
    (result,) = train(ours)
    ours.model.train()
    with torch.no_grad():
        losses = [
            F.cross_entropy(ours.model(images), labels, reduction="sum").item()
            for images, labels in ours.train_loader.epoch(1)
        ]
    assert result.train_loss == pytest.approx(sum(losses) / 23, rel=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ema_decay": 0.9},
        {"augment": "early"},
        {"augment": "always"},
        {"micro_batch_size": 2},
        {"clip_grad_norm": 0.1},
        {"class_weights": "balanced"},
    ],
)
def test_left_after_two_epochs_and_resumed_equals_unbroken(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = settings(epochs=4, **changes)
    unbroken = training(config, network(dropout=0.3))
    expected = list(train(unbroken))

    checkpoints = Checkpoints(tmp_path)
    first = training(config, network(dropout=0.3))
    generator = train(first, checkpoints=checkpoints)
    found = [next(generator), next(generator)]
    generator.close()
    torch.rand(7)  # what else draws in this process is no matter
    second = training(config, network(dropout=0.3))
    second.restore(checkpoints)
    found += train(second, checkpoints=checkpoints)
    assert same(second.model, unbroken.model)
    assert [figures(result) for result in found] == [figures(result) for result in expected]


def figures(result: EpochResult) -> tuple[Any, ...]:
    """Return what must be equal in two runs: all but times and memory."""
    return (
        result.epoch,
        result.train_loss,
        result.val_loss,
        result.ema_val_loss,
        result.lr,
        result.is_best,
        result.reason,
    )


@pytest.mark.parametrize("stop_at", [1, 3, 6, 7, 17])
def test_stopped_within_an_epoch_and_resumed_equals_unbroken(tmp_path: Path, stop_at: int) -> None:
    config, steps = settings(epochs=3, augment="early"), 0
    unbroken = training(config, network(dropout=0.3))
    expected = list(train(unbroken))

    def after_step(done: int, batches: int) -> bool:
        nonlocal steps
        steps += 1
        return steps == stop_at

    checkpoints = Checkpoints(tmp_path)
    found = list(train(training(config, network(dropout=0.3)), checkpoints=checkpoints, after_step=after_step))
    second = training(config, network(dropout=0.3))
    second.restore(checkpoints)
    found += train(second, checkpoints=checkpoints)
    assert same(second.model, unbroken.model)
    assert [figures(result) for result in found] == [figures(result) for result in expected]


def test_best_weights_are_saved_as_they_are_not_as_they_become() -> None:
    saved: list[dict[str, Any]] = []
    ours = training(settings(epochs=6, lr=0.3, schedule="constant"))
    results = list(
        train(ours, save_model=lambda state, result, history: saved.append({**_copy(state), "at": result.epoch}))
    )
    best = min(results, key=lambda result: result.val_loss)
    assert saved[-1]["at"] == best.epoch
    assert [entry["at"] for entry in saved] == [result.epoch for result in results if result.is_best]


def _copy(state: Any) -> dict[str, Any]:
    return {name: value.clone() for name, value in state.items()}


def test_a_diverging_run_ends_at_once_and_is_never_best() -> None:
    results = list(train(training(settings(epochs=5, lr=1e30, schedule="constant"))))
    assert results[-1].reason == "diverged"
    assert not math.isfinite(results[-1].val_loss)
    assert not results[-1].is_best


def test_patience_ends_a_run_that_does_not_learn() -> None:
    results = list(train(training(settings(epochs=9, lr=5e-324, patience=2), network(norm=False))))
    assert (len(results), results[-1].reason) == (3, "patience")
    assert [result.is_best for result in results] == [True, False, False]


def test_micro_batches_add_up_to_the_whole_batch() -> None:
    whole, parts = (training(settings(micro_batch_size=size), network(norm=False)) for size in (None, 2))
    expected, found = list(train(whole)), list(train(parts))
    assert [result.val_loss for result in found] == pytest.approx([result.val_loss for result in expected], rel=1e-5)


class Hungry(nn.Module):
    """Runs out of memory at the allocator's boundary whenever more than `limit` images come at once."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.inner, self.limit = network(), limit

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.inner(images)
        if self.training and len(images) > self.limit:
            torch.empty(2**62, dtype=torch.uint8)  # the allocator itself refuses
        return logits


def test_out_of_memory_halves_the_micro_batch_and_tells() -> None:
    # the step that failed is taken again from the same statistics: all as if the micro-batch had been small before
    results = list(train(hungry := training(settings(batch_size=8), Hungry(2))))
    assert results[0].notes == (
        "out of memory with 8 images at once; continuing with 4",
        "out of memory with 4 images at once; continuing with 2",
    )
    assert results[1].notes == ()
    expected = training(settings(batch_size=8, micro_batch_size=2), Hungry(2))
    list(train(expected))
    assert same(hungry.model, expected.model)


def test_what_an_epoch_has_to_tell_outlives_a_break_within_it(tmp_path: Path) -> None:
    config = settings(batch_size=8)
    hungry = training(config, Hungry(2))
    assert list(train(hungry, checkpoints=Checkpoints(tmp_path), after_step=lambda done, batches: True)) == []
    again = training(config, Hungry(2))
    again.restore(Checkpoints(tmp_path))
    first, second, *_ = train(again)
    assert first.notes == (
        "out of memory with 8 images at once; continuing with 4",
        "out of memory with 4 images at once; continuing with 2",
    )
    assert second.notes == ()


def test_out_of_memory_with_a_single_image_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        list(train(training(settings(), Hungry(0))))


class HungryInValidation(Hungry):
    """As `Hungry`, but in evaluation mode."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if not self.training and len(images) > self.limit:
            torch.empty(2**62, dtype=torch.uint8)
        logits: torch.Tensor = self.inner(images)
        return logits


def test_out_of_memory_in_validation_takes_fewer_images_at_once_and_tells() -> None:
    results = list(train(training(settings(ema_decay=0.9), HungryInValidation(1))))
    assert results[0].notes == ("out of memory in validation; continuing with 1 images at once",)
    assert results[1].notes == ()
    expected = list(train(training(settings(ema_decay=0.9), HungryInValidation(4))))
    assert expected[0].notes == ()
    assert [r.val_loss for r in results] == pytest.approx([r.val_loss for r in expected], rel=1e-5)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        list(train(training(settings(), HungryInValidation(0))))


def test_top5_only_where_there_are_more_than_five_classes() -> None:
    assert list(train(training(settings(epochs=1))))[0].val_top5 is None
    top5 = list(train(training(settings(epochs=1), classes=7)))[0].val_top5
    assert top5 is not None
    assert 0 <= top5 <= 1


def test_frozen_batch_normalisation_keeps_its_statistics() -> None:
    model = network()
    for parameter in list(model.parameters())[:-2]:
        parameter.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    list(train(training(settings(epochs=1), model)))
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"5.weight", "5.bias"}
    train_mode(model)
    assert not model[1].training


def test_other_draws_between_epochs_change_nothing() -> None:
    one, two = (training(settings(), network(dropout=0.5)) for _ in range(2))
    list(train(one))
    for _ in train(two):
        torch.manual_seed(derive_seed("somebody", "else"))
        torch.rand(5)
    assert same(one.model, two.model)


def test_a_batch_of_one_pixel_says_what_to_change() -> None:
    from automl_pt.core.errors import ConfigError

    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 3))
    with pytest.raises(ConfigError, match="use a batch size above 1, or larger images"):
        list(train(training(settings(batch_size=1), model)))


class Waits(TorchDispatchMode):
    """Counts what makes the CPU wait for a device: a tensor's value asked for, or copied to the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        moved = name == "_to_copy" and str((kwargs or {}).get("device")) == "cpu"
        if moved or name in ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select"):
            self.asked.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "changes", [{}, {"clip_grad_norm": 0.1}, {"ema_decay": 0.9}, {"class_weights": "balanced", "label_smoothing": 0.1}]
)
def test_nothing_waits_for_the_device_within_an_epoch(changes: dict[str, Any]) -> None:
    ours = training(settings(augment="early", **changes), network(dropout=0.3))
    with Waits() as waits:
        assert ours.train_epoch(lambda done, batches: False, lambda: None)
    assert waits.asked == []
    with waits:
        ours.finish_epoch(1.0, 0.0)
    assert waits.asked  # so that the test above can fail
