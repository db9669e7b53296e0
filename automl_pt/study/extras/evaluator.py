"""Evaluates models on a study's own images: logits, figures, and paired differences."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from automl_pt.config import SearchConfig
from automl_pt.core.errors import AutomlError
from automl_pt.data.prepare import Data, prepare
from automl_pt.dataset import Split
from automl_pt.features.outputs import outputs
from automl_pt.model.labelled import Scored
from automl_pt.model.load import BATCH_SIZE, Model, load_model
from automl_pt.model.paired import compare_models
from automl_pt.model.scoring import losses_of
from automl_pt.model.unsure import MAX_ERROR, measure
from automl_pt.model.unsure_file import fit_rule, save_rule, without
from automl_pt.plugins.manager import Plugins, load_plugins
from automl_pt.study.executor.base import NO_CALLER, Caller

#: images per speed measurement, and the number of measurements, of which the fastest counts
TIMED_IMAGES, REPEATS = 256, 3


@dataclass(frozen=True)
class ModelEvaluator:
    """A study's data and plugins, to evaluate models on."""

    config: SearchConfig
    data: Data
    plugins: Plugins
    #: receives notes on exhausted memory and unreadable images, and signs of progress
    caller: Caller = NO_CALLER

    @classmethod
    def of(
        cls,
        config: SearchConfig,
        directory: Path,
        plugins: Plugins | None,
        caller: Caller = NO_CALLER,
    ) -> ModelEvaluator:
        """Open the data of the study in `directory`; raises what `prepare` raises if they have changed."""
        plugins = plugins or load_plugins(config.plugins)
        data = prepare(config, plugins, manifest=directory / "manifest.json", progress=caller.progress)
        return cls(config, data, plugins, caller)

    def load(self, folder: Path) -> Model:
        """Load a model directory on the device of the search, ignoring a stored temperature."""
        return load_model(folder, device=self.config.device, plugins=self.plugins, calibrated=False)

    def score(self, model: Model, split: Split = "val", *, features: bool = False) -> Scored:
        """Run a model on a split's images; with `features` keep these."""
        pixels = self.data.pixels(split, model.info.preprocessing.image_size)
        listed = self.data.manifest.counts()[split]
        if len(pixels.labels) < listed:
            self.caller.tell(
                f"{listed - len(pixels.labels)} of {listed} {split} images cannot be read and are not evaluated"
            )
        found = outputs(model, self.data, split, self.config, self.caller.alive, features=features)
        if model.micro_batch.note is not None:
            self.caller.tell(model.micro_batch.note)
        return Scored(tuple(pixels.names), found.logits, pixels.labels, (), found.features if features else None)

    @property
    def has_test(self) -> bool:
        """Return whether there is a test split."""
        return bool(self.data.manifest.counts().get("test"))

    def keep_rule(self, model: Model, directory: Path) -> dict[str, float] | None:
        """Fit the rule for unsure answers, unless the model has one; return the figures of `test`.

        A study of too few validation images has no rule, and a note says so. An error costs only the rule, with a note.
        """
        if model.rule is not None:
            return self.test(model)
        test = self.score(model, "test", features=True) if self.has_test else None
        try:
            data = f"{self.config.dataset}, split val"
            known = self.score(model, features=True)
            rule = fit_rule(directory, known, max_error=MAX_ERROR, temperature=1.0, data=data)
            for note in without(rule, len(known.labels), MAX_ERROR):
                self.caller.tell(note)
            if rule is not None:
                answers = () if test is None else rule.answers(test.logits, test.features)
                measured = rule.measured if test is None else measure(answers, test.logits, test.labels, "test")
                save_rule(directory, replace(rule, measured=measured))
        except AutomlError as error:
            self.caller.tell(f"no rule for unsure answers was kept: {error.in_a_line()}")
        return None if test is None else _named(figures(test))

    def test(self, model: Model) -> dict[str, float] | None:
        """Return a model's loss and accuracy on the test split; None if there is none."""
        if not self.has_test:
            return None
        return _named(figures(self.score(model, "test")))

    def tested(self, model: Model, name: str) -> Generator[str, None, dict[str, float] | None]:
        """Return the result of `test`; an error is reported as a note about the model `name`, and None returned.

        Exhausted memory is reported too.
        """
        found = None
        try:
            found = self.test(model)
        except AutomlError as error:
            yield f"{name}: the test split was not measured: {error.in_a_line()}"
        if model.micro_batch.note is not None:
            yield f"{name}: {model.micro_batch.note}"
        return found

    def milliseconds(self, model: Model) -> float:
        """Return the network's milliseconds per image in validation batches, the fastest of several measurements.

        Reading and decoding are not included.
        """
        pixels = np.asarray(self.data.pixels("val", model.info.preprocessing.image_size).images[:TIMED_IMAGES])
        found = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            for start in range(0, len(pixels), BATCH_SIZE):
                model.forward(pixels[start : start + BATCH_SIZE])
                self.caller.alive()
            found.append(time.perf_counter() - started)
        return 1000 * min(found) / len(pixels)


def figures(scored: Scored) -> tuple[float, float]:
    """Return the mean loss per image and the accuracy."""
    right = scored.logits.argmax(axis=1) == scored.labels
    return float(losses_of(scored.logits, scored.labels).mean()), float(right.mean())


def _named(found: tuple[float, float]) -> dict[str, float]:
    return {"loss": found[0], "accuracy": found[1]}


def gain(new: Scored, best: Scored) -> dict[str, Any]:
    """Compare a new model with the best trial's on the same images; a positive `loss_gain` favours the new one.

    `inside_noise` is true if it is under two standard errors of the per-image differences.
    """
    paired = compare_models(new, best)
    error = paired.loss_standard_error
    (loss, accuracy), (best_loss, best_accuracy) = figures(new), figures(best)
    return {
        "images": paired.images,
        "val_loss": loss,
        "val_accuracy": accuracy,
        "best_val_loss": best_loss,
        "best_val_accuracy": best_accuracy,
        "loss_gain": -paired.loss_difference,
        "loss_standard_error": error,
        "accuracy_gain": paired.accuracy_difference,
        "p_value": paired.p_value,
        "inside_noise": error is None or abs(paired.loss_difference) < 2 * error,
    }
