"""Trains the winner's settings once more, on training and validation images together.

It trains as many epochs as the winner had when its loss was lowest, with the winner's learning-rate schedule. No
images remain to validate on: no epoch is chosen, no early stopping applies, and only a test split can measure the
result.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

from automl_pt.config import TrainConfig, as_made, make
from automl_pt.data.prepare import Data
from automl_pt.model.directory import read_info, read_model, save_model
from automl_pt.model.info import ModelInfo
from automl_pt.model.load import Model
from automl_pt.runs.directory import history
from automl_pt.runs.run import execute
from automl_pt.study.executor.base import Caller
from automl_pt.study.extras.evaluator import ModelEvaluator
from automl_pt.study.extras.extras import Ended

#: replaces validation figures in the model card and the report
UNKNOWN = "none: all training and validation images were trained on"


def make_refit(ended: Ended) -> Generator[str, None, dict[str, Any] | None]:
    """Train and write `model-refit`; None if it was stopped, to be resumed from its checkpoint."""
    evaluator, winner = (
        ModelEvaluator.of(ended.config, ended.directory, ended.plugins, Caller(alive=ended.should_stop)),
        ended.trials[0],
    )
    info, _ = read_info(ended.output(winner.number))
    epochs = int(info.metrics["epoch"])
    output = ended.directory / "refit" / f"trial-{winner.number}-epochs-{epochs}"
    data = joined(evaluator.data)
    images = data.manifest.counts()["train"]
    yield f"refit: trial {winner.number}'s settings, {epochs} epochs on all {images} images, without validation"
    for result in _epochs(settings(info, ended), output, data, evaluator, epochs, ended.should_stop):
        yield f"refit: epoch {result.epoch} of {epochs}, train loss {result.train_loss:.4f}"
    done = history(output)
    if done and done[-1].reason == "diverged":
        yield "refit: its training loss is not finite, so it is not kept"
        return {"model": None, "trial": winner.number, "epochs": len(done), "test": None}
    if len(done) < epochs:
        return None
    model = evaluator.load(output)
    test = yield from evaluator.tested(model, "refit")
    metrics = {"refit_of_trial": winner.number, "epoch": epochs, "validation": UNKNOWN}
    figures = _publish(ended, model, output, metrics, test)
    # beside the model, so that evaluating it on these images reports that it was trained on them
    data.manifest.save(ended.directory / "model-refit" / "manifest.json")
    return figures


def joined(data: Data) -> Data:
    """Return the data with the validation images added to the training images; the test split is unchanged."""
    entries = (entry._replace(split="train") if entry.split == "val" else entry for entry in data.manifest.entries)
    return replace(data, manifest=replace(data.manifest, entries=tuple(entries)))


def settings(info: ModelInfo, ended: Ended) -> TrainConfig:
    """Return the winner's settings, on the devices of this search.

    A moving average of the weights is kept if the winner's model was one, because there is nothing to choose by.
    """
    here = {name: getattr(ended.config, name) for name in ("device", "threads", "cache_dir", "checkpoint_minutes")}
    average = info.config.get("ema_decay", 0.0) if info.metrics.get("weights") == "ema" else 0.0
    return make(TrainConfig, {**as_made(info.config), **here, "ema_decay": average})


def _epochs(
    config: TrainConfig,
    output: Path,
    data: Data,
    evaluator: ModelEvaluator,
    epochs: int,
    should_stop: Callable[[], bool],
) -> Generator[Any]:
    """Yield the remaining epochs, at most `epochs` in all."""

    def after_step(done: int, batches: int) -> bool:
        # a run killed between an epoch's checkpoint and its history line may have all epochs already
        return should_stop() or (done == 1 and len(history(output)) >= epochs)

    past = history(output)
    if len(past) >= epochs or (past and past[-1].reason is not None):
        return
    for result in execute(config, output, data=data, plugins=evaluator.plugins, after_step=after_step):
        yield result
        if result.epoch >= epochs:
            return


def _publish(
    ended: Ended, model: Model, output: Path, metrics: dict[str, Any], test: dict[str, float] | None
) -> dict[str, Any]:
    """Write the model with the figures that are known."""
    target = ended.directory / "model-refit"
    info, _, _ = read_model(output)
    train_loss = history(output)[-1].train_loss
    known = {**metrics, "train_loss": train_loss, "weights": info.metrics.get("weights")}
    shown = {f"test_{name}": value for name, value in (test or {}).items()}
    save_model(target, model.network.state_dict(), replace(info, metrics={**known, **shown}))
    shutil.rmtree(output / "checkpoints", ignore_errors=True)
    return {"model": str(target), "trial": metrics["refit_of_trial"], "epochs": metrics["epoch"], "test": test}
