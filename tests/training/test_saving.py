"""Saving rarely: with a clock of the test's own, on real trainings, against a run that saves every epoch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_trainer import network, same, settings, training

from automl_pt.training import saving
from automl_pt.training.checkpoint import Checkpoints
from automl_pt.training.loop import train


class Clock:
    """Seconds that only what the test does lets pass: `cost` for each model that is saved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cost: float) -> None:
        self.now, self.cost, self.models = 0.0, cost, list[int]()
        monkeypatch.setattr(saving.time, "monotonic", lambda: self.now)

    def save_model(self, state: Any, result: Any, past: Any) -> None:
        self.now += self.cost
        self.models.append(result.epoch)


def run(clock: Clock, folder: Path, *, epochs: int = 12, seconds: float, **options: Any) -> Iterator[Any]:
    """Train epochs that take `seconds` each."""
    ours = training(settings(epochs=epochs, patience=99, keep="last"), network())
    saved = options.pop("share", 0.005)
    for result in train(ours, checkpoints=Checkpoints(folder), save_model=clock.save_model, share=saved, **options):
        clock.now += seconds
        yield result


def test_saving_takes_a_small_share_of_epochs_of_ten_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, cost=0.3)
    monkeypatch.setattr(saving, "SPEED", 1e4)  # the weights are taken to be large: 0.3 s before one was timed
    list(run(clock, tmp_path, epochs=60, seconds=10.0))
    assert clock.models[-1] == 60
    # the last epoch is saved whatever it takes
    assert 0.3 * (len(clock.models) - 1) <= 0.005 * 600
    assert len(clock.models) >= 5


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"share": 0.0}, [1, 2, 3, 4, 5]),
        ({"must_save": lambda epoch: epoch in (2, 3)}, [2, 3, 5]),
        ({}, [5]),
    ],
)
def test_which_epochs_are_saved_when_time_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], expected: list[int]
) -> None:
    clock, seen = Clock(monkeypatch, cost=1.0), list[int]()
    list(run(clock, tmp_path, epochs=5, seconds=0.0, after_save=lambda: seen.append(clock.models[-1]), **options))
    assert clock.models == seen == expected


def test_a_run_that_is_left_saves_what_is_not_on_disk_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, cost=1.0)
    results = run(clock, tmp_path, seconds=0.0)
    assert [next(results).epoch for _ in range(3)] == [1, 2, 3]
    assert clock.models == []
    results.close()  # type: ignore[attr-defined]
    assert clock.models == [3]
    second = training(settings(epochs=12, patience=99, keep="last"), network())
    second.restore(Checkpoints(tmp_path))
    assert second.progress.epochs_done == 3


def test_the_best_weights_are_kept_until_they_are_saved(tmp_path: Path) -> None:
    kept: list[list[Any]] = [[], []]
    for found, share in zip(kept, (0.0, 1e-9), strict=True):
        ours = training(settings(epochs=6, patience=99), network())

        def keep(state: Any, result: Any, past: Any, found: list[Any] = found) -> None:
            found.append((result.epoch, len(past), {name: value.clone() for name, value in state.items()}))

        results = list(train(ours, checkpoints=Checkpoints(tmp_path / str(share)), save_model=keep, share=share))
        best = max(result.epoch for result in results if result.is_best)
    (epoch, past, state), (other, other_past, other_state) = kept[0][-1], kept[1][-1]
    assert epoch == other == best
    assert past == other_past
    assert all(value.equal(other_state[name]) for name, value in state.items())
    assert len(kept[1]) == 1


def test_a_killed_run_computes_again_what_was_not_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = training(settings(epochs=6, patience=99), network(dropout=0.3))
    list(train(whole))
    killed = training(settings(epochs=6, patience=99), network(dropout=0.3))
    results = train(killed, checkpoints=Checkpoints(tmp_path), share=1e-9, must_save=lambda epoch: epoch == 2)
    for _ in range(4):
        next(results)
    second = training(settings(epochs=6, patience=99), network(dropout=0.3))
    second.restore(Checkpoints(tmp_path))  # as if the first had been killed here
    assert second.progress.epochs_done == 2
    list(train(second))
    assert same(second.model, whole.model)
