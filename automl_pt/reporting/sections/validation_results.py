"""The model's results on the validation images: figures by class, confusions, calibration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_pt.config import TrainConfig
from automl_pt.core.errors import AutomlError, StudyError
from automl_pt.core.text import printable
from automl_pt.data.prepare import Data, Pixels, prepare
from automl_pt.features.outputs import outputs
from automl_pt.model.load import Model, load_model
from automl_pt.model.scoring import Scores, interval, score
from automl_pt.plugins.manager import Plugins, load_plugins
from automl_pt.reporting.sections import Section, missing, why
from automl_pt.runs.directory import recorded_config
from automl_pt.study.executor.base import NO_CALLER, Caller

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: pairs of confused classes that are listed
MAX_PAIRS = 200
#: a confusion that occurred once may be chance
LEAST_PAIR = 2


@dataclass(frozen=True)
class ValidationResults:
    """A model's probabilities float32[N, C] on the N validation images of its own split, and the figures of them."""

    model: Model
    data: Data
    pixels: Pixels
    probabilities: NDArray[np.float32]
    scores: Scores

    def source(self, index: int) -> Path | NDArray[Any]:
        """Return the file or array that image `index` was made from."""
        images = self.data.inventory
        return images.images.images[images.index[self.pixels.names[index]]]


def judge(
    directory: Path,
    manifest: Path | None,
    *,
    device: str = "auto",
    plugins: Plugins | None = None,
    caller: Caller = NO_CALLER,
) -> ValidationResults:
    """Run the model in `directory` on the validation images of `manifest`; raises as loading them does.

    Raises StudyError for None, because a new split would contain images that the model was trained on.
    """
    from automl_pt.model.directory import read_info

    if manifest is None:
        raise StudyError(
            "the manifest of the model's data is missing",
            given=printable(f"{directory}: no manifest.json beside it"),
            remedy="restore the file from a copy",
        )
    settings = recorded_config(TrainConfig, read_info(directory)[0].config, source=directory / "model.json")
    plugins = plugins if plugins is not None else load_plugins()
    model = load_model(directory, device=device, plugins=plugins)
    data = prepare(settings, plugins, manifest=manifest, progress=caller.progress)
    pixels = data.pixels("val", model.info.preprocessing.image_size)
    logits = outputs(model, data, "val", settings, caller.alive, features=False).logits
    scores = score(logits, pixels.labels, model.classes, temperature=model.temperature)
    return ValidationResults(model, data, pixels, model.probabilities(logits), scores)


def try_judge(make_judged: Callable[[], ValidationResults]) -> ValidationResults | Section:
    """Return the validation results, or a section that states why there are none."""
    try:
        return make_judged()
    except AutomlError as error:
        return missing(f"The model could not be run on the validation images. {why(error)}")


def classes_section(judged: ValidationResults) -> Section:
    """List the classes, lowest recall first, with Wilson's intervals."""
    scores, split = judged.scores, f"{judged.scores.images:,} validation images"
    rows = [{"index": index, **vars(entry)} for index, entry in enumerate(scores.per_class)]
    rows.sort(key=lambda row: (row["recall"] is None, row["recall"], row["index"]))
    note = (
        f"On the {split}, lowest recall first. The search and the choice of the epoch saw these images: "
        "new images may do slightly worse. The 95 % intervals are Wilson's; those of classes with few images are wide."
    )
    figures = {name: getattr(scores, name) for name in ("images", "loss", "accuracy", "accuracy_interval", "top5")}
    return {"split": "val", "note": note, **figures, "macro": scores.macro, "weighted": scores.weighted, "rows": rows}


def confusion_section(judged: ValidationResults) -> Section:
    """Return the confusion matrix as counts and as shares of the true class, and its largest errors."""
    if judged.scores.confusion is None:
        return missing(f"With {len(judged.model.classes):,} classes the matrix is not shown.")
    counts = np.asarray(judged.scores.confusion)
    rows = counts.sum(axis=1)
    shares = [[None if not total else float(n / total) for n in row] for row, total in zip(counts, rows, strict=True)]
    return {
        "classes": list(judged.model.classes),
        "counts": counts.tolist(),
        "shares": shares,
        "pairs": _pairs(counts, judged.model.classes),
    }


def _pairs(counts: NDArray[np.int64], classes: tuple[str, ...]) -> list[dict[str, Any]]:
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    wrong[wrong < LEAST_PAIR] = 0
    found = sorted((-int(wrong[true, predicted]), int(true), int(predicted)) for true, predicted in np.argwhere(wrong))
    return [
        {
            "true": classes[true],
            "predicted": classes[predicted],
            "images": -negative,
            "share": -negative / int(counts[true].sum()),
        }
        for negative, true, predicted in found[:MAX_PAIRS]
    ]


def calibration_section(judged: ValidationResults) -> Section:
    """Return the reliability curve and the expected calibration error."""
    found = judged.scores.calibration
    bins = [{**vars(one), "interval": interval(round(one.accuracy * one.images), one.images)} for one in found.bins]
    mean = sum(one.images * one.confidence for one in found.bins) / judged.scores.images
    drift = mean - judged.scores.accuracy
    verdict = "about as sure as it is right"
    if abs(drift) >= 0.01:
        verdict = f"{'surer' if drift > 0 else 'less sure'} than it is right: by {100 * abs(drift):.1f} points"
    note = (
        f"On average the model is {100 * mean:.1f} % sure, and right on {100 * judged.scores.accuracy:.1f} %: it is "
        f"{verdict}. "
        f"The expected calibration error over {len(bins)} bins is {found.ece:.4f}. On the dashed line its "
        "probabilities are right; below the line it is overconfident. A larger dot stands for more images; "
        "the lines are 95 % intervals, long where there are few."
    )
    temperature = judged.model.temperature
    if temperature != 1:
        note += (
            f" The model's temperature of {temperature:.3g} is applied; it may have been chosen on these very images."
        )
    else:
        note += (
            " No temperature is kept with the model, so that these are its own probabilities; `automl-pt evaluate "
            "MODEL DATA --calibrate` fits one."
        )
    return {"ece": found.ece, "mean_confidence": mean, "bins": bins, "temperature": temperature, "note": note}
