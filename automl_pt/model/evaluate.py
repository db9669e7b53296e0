"""`evaluate`: a model on labelled images, alone or compared with another, optionally fitting when it is unsure."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_pt.core.errors import UsageError
from automl_pt.core.text import printable
from automl_pt.data.pixel_survey import conversion_note
from automl_pt.images.read import UnreadableImage
from automl_pt.model.labelled import Choice, Labelled, Scored, manifest_of, open_labelled, run_model
from automl_pt.model.load import Model, find_model, load_model, read_info
from automl_pt.model.paired import Paired, compare_models
from automl_pt.model.scoring import Scores, score
from automl_pt.model.temperature import Temperature, calibrated, read_temperature, save_temperature, uncertain
from automl_pt.model.unsure import MAX_ERROR, Measured, UnsureRule, measure, require_max_error
from automl_pt.model.unsure_file import fit_rule, save_rule, without

if TYPE_CHECKING:
    from automl_pt.plugins.manager import Plugins

#: receives a number of images, and returns a context whose value is called after each
Progress = Callable[[int], AbstractContextManager[Callable[[], None]]]


@dataclass(frozen=True)
class Evaluation:
    """A model's figures on a split, the unreadable images with reasons, and the optional results."""

    split: Choice
    notes: tuple[str, ...]
    scores: Scores
    unreadable: tuple[tuple[str, str], ...]
    paired: Paired | None
    fitted: Temperature | None
    #: the rule for unsure answers that was fitted and is kept with the model
    rule: UnsureRule | None = None
    #: the figures of the model's rule on these images, and the largest share of wrong sure answers it was fitted for
    unsure: Measured | None = None
    max_error: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return {
            "split": self.split,
            "notes": list(self.notes),
            **self.scores.to_dict(),
            "unreadable": [{"name": name, "reason": reason} for name, reason in self.unreadable],
            "comparison": self.paired.to_dict() if self.paired is not None else None,
            "calibrated": self.fitted.to_dict() if self.fitted is not None else None,
            "unsure": self.unsure.to_dict() | {"max_error": self.max_error} if self.unsure is not None else None,
            "unsure_rule": self.rule.to_dict() if self.rule is not None else None,
        }


def evaluate(
    path: Path,
    dataset: str,
    plugins: Plugins,
    *,
    split: Choice | None = None,
    other: Path | None = None,
    calibrate: bool = False,
    max_error: float | None = None,
    with_temperature: bool = True,
    device: str = "auto",
    progress: Progress = lambda total: nullcontext(lambda: None),
    **settings: Any,
) -> Evaluation:
    """Evaluate the model at `path` on `dataset`, read according to `settings`, which are fields of TrainConfig.

    With `calibrate` the default split is val; a temperature and a rule for unsure answers, by which at most a share
    `max_error` (default: 0.05) is sure and wrong, are fitted to it and stored beside the model, and the figures use the
    temperature. Raises UsageError for images that they must not be fitted to, and what loading the model and opening
    the data raise.
    """
    error = _max_error(max_error, calibrate)
    model = load_model(path, device=device, plugins=plugins, calibrated=with_temperature and not calibrate)
    directory = find_model(path)
    if calibrate:
        model, split = replace(model, rule=None), _calibration_split(split)
    data = open_labelled(dataset, model.classes, plugins, split=split, manifest=manifest_of(directory), **settings)
    if calibrate:
        _require_own(data, dataset)
    with progress(len(data.labels)) as advance:
        scored = run_model(model, data, advance, features=calibrate)
    what = f"{dataset}, split {data.split}"
    fitted, unfit = _fitted(directory, scored, what) if calibrate else (None, [])
    temperature = model.temperature if fitted is None else fitted.temperature
    rule = None
    if calibrate:
        rule, more = _fit_rule(directory, scored, error, what)
        unfit += more
        if rule is not None:
            rule = _tested(rule, directory, replace(model, rule=rule), dataset, plugins, data, progress, settings)
    scores = score(scored.logits, scored.labels, model.classes, temperature=temperature)
    notes = [*data.notes, *([] if temperature == 1 else [f"probabilities are those at temperature {temperature:.4g}"])]
    notes += unfit
    if (converted := conversion_note(_sample(data), model.info.preprocessing.pixels)) is not None:
        notes.append(converted)
    notes += [model.micro_batch.note] if model.micro_batch.note else []
    paired = _paired(model, temperature, data, scored, other, device, plugins, with_temperature) if other else None
    found = Evaluation(data.split, tuple(notes), scores, scored.unreadable, paired, fitted, rule)
    if model.rule is None or scored.answers is None:
        return found
    unsure = measure(scored.answers, scored.logits, scored.labels, data.split)
    return replace(found, unsure=unsure, max_error=model.rule.max_error)


def _max_error(given: float | None, calibrate: bool) -> float:
    if given is None:
        return MAX_ERROR
    require_max_error(given)
    if not calibrate:
        raise UsageError(
            "--max-error belongs to --calibrate",
            given=f"--max-error {given:g} without --calibrate",
            remedy="add --calibrate to fit the rule again, or remove --max-error",
        )
    return given


def _fit_rule(directory: Path, scored: Scored, max_error: float, data: str) -> tuple[UnsureRule | None, list[str]]:
    """Fit the rule for unsure answers; if the images do not suffice for it or for a part of it, note that."""
    kept = read_temperature(directory, read_info(directory)[1].sha256)
    temperature = 1.0 if kept is None else kept.temperature
    rule = fit_rule(directory, scored, max_error=max_error, temperature=temperature, data=data)
    return rule, without(rule, len(scored.labels), max_error)


def _tested(
    rule: UnsureRule,
    directory: Path,
    model: Model,
    dataset: str,
    plugins: Plugins,
    fitted_on: Labelled,
    progress: Progress,
    settings: dict[str, Any],
) -> UnsureRule:
    """Measure the rule on the test split, if there is one, and keep it with the model."""
    if "test" in fitted_on.present:
        manifest = manifest_of(directory)
        test = open_labelled(dataset, model.classes, plugins, split="test", manifest=manifest, **settings)
        with progress(len(test.labels)) as advance:
            found = run_model(model, test, advance)
        assert found.answers is not None
        rule = replace(rule, measured=measure(found.answers, found.logits, found.labels, "test"))
    save_rule(directory, rule)
    return rule


def _sample(data: Labelled) -> list[Any]:
    """Return the files that are used; of arrays, which may have to be made, the first one."""
    first = next(data.sources(), None)
    if not isinstance(first, Path):
        return [] if first is None or isinstance(first, UnreadableImage) else [first]
    return [data.images[index] for index in data.taken]


def _calibration_split(split: Choice | None) -> Choice:
    """Return the split to fit a temperature on; raise UsageError for training and test images."""
    if split in ("train", "test"):
        why = "a model is too sure of its training images" if split == "train" else "test images must not be fitted to"
        raise UsageError(
            f"a temperature cannot be fitted on this split: {why}",
            given=f"--split {split}",
            remedy="remove --split, or give other labelled images with --split all",
        )
    return split or "val"


def _require_own(data: Labelled, dataset: str) -> None:
    if "test" in data.present and data.split in ("all", "unseen"):
        raise UsageError(
            "a temperature cannot be fitted on this split: test images must not be fitted to",
            given=f"--split {data.split} of {printable(dataset)}, which has a test split",
            remedy="remove --split",
        )


def _fitted(directory: Path, scored: Scored, data: str) -> tuple[Temperature | None, list[str]]:
    """Fit a temperature and store it beside the model; if the images do not determine it, note that and store none."""
    found = calibrated(directory, scored.logits, scored.labels, data)
    if (reason := uncertain(scored.logits, scored.labels, found.temperature)) is not None:
        kept = read_temperature(directory, found.weights)
        rest = "" if kept is None else f"; the stored one, {kept.temperature:.4g}, remains"
        return None, [f"no temperature was stored: {reason}{rest}"]
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
