"""`evaluate`: a model on labelled images, alone or beside another, and its temperature fitted where that is asked."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_pt.core.errors import UsageError
from automl_pt.core.text import printable
from automl_pt.model.labelled import Choice, Labelled, Scored, manifest_of, open_labelled, run_model
from automl_pt.model.load import Model, find_model, load_model
from automl_pt.model.paired import Paired, compare_models
from automl_pt.model.scoring import Scores, score
from automl_pt.model.temperature import Temperature, calibrated, read_temperature, save_temperature, uncertain

if TYPE_CHECKING:
    from automl_pt.plugins.manager import Plugins

#: given a number of images, returns a context whose value is called after each
Progress = Callable[[int], AbstractContextManager[Callable[[], None]]]


@dataclass(frozen=True)
class Evaluation:
    """A model's figures on a split, the names and reasons of what could not be read, and what else was asked for."""

    split: Choice
    notes: tuple[str, ...]
    scores: Scores
    unreadable: tuple[tuple[str, str], ...]
    paired: Paired | None
    fitted: Temperature | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return {
            "split": self.split,
            "notes": list(self.notes),
            **self.scores.to_dict(),
            "unreadable": [{"name": name, "reason": reason} for name, reason in self.unreadable],
            "comparison": self.paired.to_dict() if self.paired is not None else None,
            "calibrated": self.fitted.to_dict() if self.fitted is not None else None,
        }


def evaluate(
    path: Path,
    dataset: str,
    plugins: Plugins,
    *,
    split: Choice | None = None,
    other: Path | None = None,
    calibrate: bool = False,
    with_temperature: bool = True,
    device: str = "auto",
    progress: Progress = lambda total: nullcontext(lambda: None),
    **settings: Any,
) -> Evaluation:
    """Measure the model at `path` on `dataset`, read as the fields of TrainConfig in `settings` say.

    With `calibrate` the split is val unless another is named; the temperature is fitted to it, kept beside the model,
    and the figures are those at it. Raises UsageError when it would be fitted to images it must not be, and what
    loading the model and opening the data raise.
    """
    model = load_model(path, device=device, plugins=plugins, calibrated=with_temperature and not calibrate)
    directory = find_model(path)
    if calibrate:
        split = _calibration_split(split)
    data = open_labelled(dataset, model.classes, plugins, split=split, manifest=manifest_of(directory), **settings)
    if calibrate:
        _require_own(data, dataset)
    with progress(len(data.labels)) as advance:
        scored = run_model(model, data, advance)
    fitted, unfit = _fitted(directory, scored, f"{dataset}, split {data.split}") if calibrate else (None, [])
    temperature = model.temperature if fitted is None else fitted.temperature
    scores = score(scored.logits, scored.labels, model.classes, temperature=temperature)
    notes = [*data.notes, *([] if temperature == 1 else [f"probabilities are those at temperature {temperature:.4g}"])]
    notes += unfit
    notes += [model.micro_batch.note] if model.micro_batch.note else []
    paired = _paired(model, temperature, data, scored, other, device, plugins, with_temperature) if other else None
    return Evaluation(data.split, tuple(notes), scores, scored.unreadable, paired, fitted)


def _calibration_split(split: Choice | None) -> Choice:
    """Return the split to fit a temperature on; raise UsageError for one that it must not see, or has seen too well."""
    if split in ("train", "test"):
        why = (
            "a model is surer of images it was trained on" if split == "train" else "test images judge, and fit nothing"
        )
        raise UsageError(
            f"a temperature is fitted on validation images: {why}",
            given=f"--split {split}",
            remedy="leave --split out, or name other labelled images with --split all",
        )
    return split or "val"


def _require_own(data: Labelled, dataset: str) -> None:
    if "test" in data.present and data.split in ("all", "unseen"):
        raise UsageError(
            "a temperature is fitted on validation images: test images judge, and fit nothing",
            given=f"--split {data.split} of {printable(dataset)}, which has a test split",
            remedy="leave --split out",
        )


def _fitted(directory: Path, scored: Scored, data: str) -> tuple[Temperature | None, list[str]]:
    """Fit a temperature and keep it beside the model; where the images do not tell it, say so and keep none."""
    found = calibrated(directory, scored.logits, scored.labels, data)
    if (reason := uncertain(scored.logits, scored.labels, found.temperature)) is not None:
        kept = read_temperature(directory, found.weights)
        rest = "" if kept is None else f"; the one kept before, {kept.temperature:.4g}, stays"
        return None, [f"no temperature was kept: {reason}{rest}"]
    save_temperature(directory, found)
    return found, []


def _paired(
    model: Model,
    temperature: float,
    data: Labelled,
    scored: Scored,
    other: Path,
    device: str,
    plugins: Plugins,
    with_temperature: bool,
) -> Paired:
    second = load_model(other, device=device, plugins=plugins, calibrated=with_temperature)
    found = run_model(second, data.for_model(model.classes, second.classes))
    return compare_models(scored.at(temperature), found.at(second.temperature))
