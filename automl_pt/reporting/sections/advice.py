"""What to try next, from what the study knows; each line has its reason."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from automl_pt.core.errors import DatasetError, StudyError
from automl_pt.core.text import counted
from automl_pt.images.formats import described
from automl_pt.images.read import read
from automl_pt.reporting.sections import Section, missing
from automl_pt.reporting.sections.mistakes import WEAK
from automl_pt.reporting.sections.validation_results import ValidationResults
from automl_pt.reporting.study import StudyReport
from automl_pt.study.store.study_files import read_object

#: ratio of the largest to the smallest class above which rarity matters
IMBALANCE = 4.0
#: share of the logarithmic range of learning rates at each end that is its edge
EDGE = 0.1
#: difference of a rare class's recall from the accuracy above which it is reported
BEHIND = 0.1
#: validation images whose size in pixels is read
SAMPLE = 16
#: with a higher accuracy, larger images would change little
GOOD = 0.98
Tip = tuple[str, str]


def advice_section(report: StudyReport, judged: ValidationResults | Section, forecast: Section) -> Section:
    """List what to try next, the most promising first."""
    if report.best is None:
        return missing("There is no model yet to improve.")
    config = _config(report)
    tips = [
        *_start(config),
        *_images(forecast),
        *(_of_results(judged, config) if isinstance(judged, ValidationResults) else ()),
        *_range(report),
        *_epochs(report),
        *_trials(report),
    ]
    if not tips:
        return {"tips": [], "note": "Nothing in this study points to a setting that would clearly help."}
    return {"tips": [{"what": what, "why": why} for what, why in tips], "note": ""}


def _config(report: StudyReport) -> Mapping[str, Any]:
    assert report.best is not None
    try:
        config = read_object(Path(report.directory) / "trials" / str(report.best.number) / "run.json").get("config")
    except StudyError:
        return {}
    return config if isinstance(config, dict) else {}


def _start(config: Mapping[str, Any]) -> Iterator[Tip]:
    if config and not config.get("pretrained") and not config.get("weights"):
        yield (
            "Start from pretrained weights (`--pretrained`, or another `--backbone` that has some)",
            "the network started from random weights, which need many more images",
        )


def _images(forecast: Section) -> Iterator[Tip]:
    twice, now = forecast.get("twice"), forecast.get("now")
    if twice is not None and now is not None and twice - now >= 0.01:
        yield (
            f"Collect more images: about {2 * forecast['images']:,} for training",
            f"the accuracy of the linear probe still rises, to about {100 * twice:.0f} % with twice as many",
        )


def _of_results(judged: ValidationResults, config: Mapping[str, Any]) -> Iterator[Tip]:
    yield from _classes(judged, config)
    yield from _resolution(judged)
    yield from _labels(judged)


def _classes(judged: ValidationResults, config: Mapping[str, Any]) -> Iterator[Tip]:
    entries = [entry for entry in judged.scores.per_class if entry.images and entry.recall is not None]
    is_weighted = config.get("class_weights", "none") != "none" or config.get("sampling") == "balanced"
    if len(entries) < 2 or is_weighted:
        return
    rare, common = min(entries, key=lambda one: one.images), max(entries, key=lambda one: one.images)
    if common.images >= IMBALANCE * rare.images and (rare.recall or 0.0) < judged.scores.accuracy - BEHIND:
        yield (
            "Weight classes by their rarity (`--class-weights balanced`), or collect images of the rare ones",
            f"{rare.name} has {counted(rare.images, 'validation image')} and a recall of "
            f"{100 * (rare.recall or 0):.0f} %, {common.name} has {common.images}",
        )


def _resolution(judged: ValidationResults) -> Iterator[Tip]:
    side = judged.model.info.preprocessing.image_size
    step = max(1, len(judged.pixels.labels) // SAMPLE)
    sides = [_shorter_side(judged.source(index)) for index in range(0, len(judged.pixels.labels), step)]
    known = sorted(found for found in sides if found is not None)
    typical = known[len(known) // 2] if known else 0
    if typical >= 2 * side and judged.scores.accuracy < GOOD:
        yield (
            f"Train on larger images (`--image-size {2 * side}`)",
            f"their shorter side is typically {typical:,} px and they were trained at {side} px; an epoch then takes "
            "about four times as long",
        )


def _shorter_side(source: Path | np.ndarray[Any, np.dtype[np.uint8]]) -> int | None:
    """Return the shorter side of an image in pixels; None if its file can no longer be read."""
    if not isinstance(source, Path):
        return int(min(source.shape[:2]))
    try:
        found = described(read(source), source)
        return min(found.width, found.height)
    except DatasetError:
        return None


def _range(report: StudyReport) -> Iterator[Tip]:
    rates = [trial.params["lr"] for trial in report.trials if isinstance(trial.params.get("lr"), float)]
    best = report.best.params.get("lr") if report.best is not None else None
    if len(rates) < 4 or not isinstance(best, float) or min(rates) <= 0 or min(rates) == max(rates):
        return
    low, high = math.log(min(rates)), math.log(max(rates))
    place = (math.log(best) - low) / (high - low)
    if place < EDGE or place > 1 - EDGE:
        end, asked = ("lowest", best / 10) if place < EDGE else ("highest", best * 10)
        wider = f"{asked:.2g}:{max(rates):.2g}" if place < EDGE else f"{min(rates):.2g}:{asked:.2g}"
        yield (
            f"Search a wider range of learning rates (`--lr {wider}`)",
            f"the best one, {best:.2g}, is among the {end} that were tried",
        )


def _epochs(report: StudyReport) -> Iterator[Tip]:
    best = report.best
    if best is None or best.number < 0 or len(best.losses) < 2:
        return
    epochs = sorted(best.losses)
    last, before = best.losses[epochs[-1]], best.losses[epochs[-2]]
    if last < before * 0.98 and best.reason == "completed":
        yield (
            f"Train longer (`--epochs {2 * epochs[-1]}`)",
            f"the validation loss was still falling in the last epoch, from {before:.4f} to {last:.4f}",
        )


def _trials(report: StudyReport) -> Iterator[Tip]:
    assert report.best is not None
    if report.best.number < 0 and report.trials:
        yield (
            "Fine-tune more gently: more epochs, or `--layer-decay 0.8`",
            f"none of {counted(len(report.trials), 'trial')} had a lower loss than the linear probe",
        )
    diverged = sum(trial.reason == "diverged" for trial in report.trials)
    if diverged > len(report.trials) / 4:
        yield (
            "Search lower learning rates (`--lr`), or limit the gradient (`--clip-grad-norm 1`)",
            f"{diverged} of {counted(len(report.trials), 'trial')} diverged",
        )


def _labels(judged: ValidationResults) -> Iterator[Tip]:
    from automl_pt.model.scoring import label_errors

    doubted = len(label_errors(judged.probabilities, judged.pixels.labels))
    if doubted >= 3 and judged.scores.accuracy >= WEAK:
        yield (
            "Check the labels listed under Mistakes",
            f"{doubted} validation images are more likely of another class than the labelled one",
        )
