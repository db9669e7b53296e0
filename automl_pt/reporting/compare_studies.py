"""Two studies side by side: data, space, trials, cost, and, on the same images, which of their models is better."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from automl_pt.config import SearchConfig
from automl_pt.core.errors import AutomlError, StudyError
from automl_pt.data.manifest import Manifest
from automl_pt.model.directory import read_info
from automl_pt.plugins.manager import Plugins, load_plugins
from automl_pt.reporting.study import StudyReport, find_study, is_elsewhere, read_study
from automl_pt.runs.directory import recorded_config
from automl_pt.study.extras.evaluator import ModelEvaluator, gain
from automl_pt.study.resume import FREE
from automl_pt.study.store.study_files import read_object

#: settings of the search that are shown for both
SPACE = ("backbones", "lr", "batch_sizes", "search", "epochs", "trials", "sampler", "pruner")


@dataclass(frozen=True)
class Side:
    """One of the two studies. `seconds` are those of its trials' epochs, added up; `full_runs` counts their epochs."""

    name: str
    directory: str
    fingerprint: str
    images: dict[str, int]
    space: dict[str, Any]
    states: dict[str, int]
    seconds: float
    full_runs: float
    best_trial: int | None
    params: dict[str, Any]
    val_loss: float | None
    val_accuracy: float | None
    test: dict[str, Any] | None


@dataclass(frozen=True)
class StudyComparison:
    """Two studies and their difference.

    `same_data` holds where both trained and validated on the same images; only then their validation figures can be
    compared, and `paired` is that comparison of their models, image by image, with the first study as the new one.
    `other_settings` names what else their trials were made with, first and second.
    """

    first: Side
    second: Side
    same_data: bool
    same_test: bool
    other_settings: dict[str, tuple[Any, Any]]
    paired: dict[str, Any] | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return asdict(self)


def compare_studies(
    first: str | Path,
    second: str | Path,
    *,
    storage: str | None = None,
    device: str = "auto",
    plugins: Plugins | None = None,
) -> StudyComparison:
    """Compare two studies, given by their names in `studies/` or by path.

    If the data are the same, both models are run on the validation images again; if that fails the notes state why. Of
    plugins only `plugins` (default: those installed) are used, and `storage` is opened for a study outside its folder.
    Raises UnknownNameError for an unknown study, StudyError for one that is damaged
    or was not started.
    """
    reports = [_read(study, storage) for study in (first, second)]
    asked = [_asked(report) for report in reports]
    manifests = [Manifest.load(Path(report.directory) / "manifest.json") for report in reports]
    sides = [_side(*parts) for parts in zip(reports, asked, manifests, strict=True)]
    same_data = sides[0].fingerprint == sides[1].fingerprint
    tests = [{entry[1:3] for entry in manifest.entries if entry.split == "test"} for manifest in manifests]
    paired, notes = None, list[str]()
    if not same_data:
        notes.append("not comparable: their training or validation images, or their splits, are others")
    else:
        paired, said = _paired(reports, asked, device, plugins)
        notes += said
    if tests[0] != tests[1]:
        notes.append("their test splits hold other images: the test figures cannot be compared")
    return StudyComparison(
        first=sides[0],
        second=sides[1],
        same_data=same_data,
        same_test=tests[0] == tests[1],
        other_settings=_differing(*asked),
        paired=paired,
        notes=tuple(notes),
    )


def _read(study: str | Path, storage: str | None) -> StudyReport:
    directory = find_study(study)
    return read_study(directory, storage=storage if is_elsewhere(directory) else None)


def _asked(report: StudyReport) -> SearchConfig:
    found = read_object(Path(report.directory) / "study.json").get("asked")
    if not isinstance(found, dict):
        raise StudyError(
            "the study has no record of its settings",
            given=f"{report.directory}: {report.status}",
            remedy="search it with this version: `automl-pt search` records them",
        )
    return recorded_config(SearchConfig, found, source=Path(report.directory) / "study.json")


def _side(report: StudyReport, asked: SearchConfig, manifest: Manifest) -> Side:
    best = report.best
    epochs = sum(trial.epochs_done for trial in report.trials)
    return Side(
        name=report.name,
        directory=report.directory,
        fingerprint=manifest.fingerprint(),
        images={str(split): count for split, count in manifest.counts().items()},
        space={name: getattr(asked, name) for name in SPACE},
        states=report.states(),
        seconds=sum(trial.seconds for trial in report.trials),
        full_runs=epochs / asked.epochs,
        best_trial=best.number if best else None,
        params=best.params if best else {},
        val_loss=best.value if best else None,
        val_accuracy=_accuracy(report),
        test=report.test,
    )


def _accuracy(report: StudyReport) -> float | None:
    if report.model is None:
        return None
    found = read_info(Path(report.model))[0].metrics.get("val_accuracy")
    return float(found) if isinstance(found, float | int) else None


def _differing(first: SearchConfig, second: SearchConfig) -> dict[str, tuple[Any, Any]]:
    values = [config.model_dump(mode="json", exclude={*FREE, *SPACE}) for config in (first, second)]
    return {name: (values[0][name], values[1][name]) for name in values[0] if values[0][name] != values[1][name]}


def _renamed(found: dict[str, Any]) -> dict[str, Any]:
    """Call the new model's figures the first's and the best trial's the second's."""
    names = {"best_val_loss": "second_val_loss", "best_val_accuracy": "second_val_accuracy"}
    names |= {"val_loss": "first_val_loss", "val_accuracy": "first_val_accuracy"}
    return {names.get(name, name): value for name, value in found.items()}


def _paired(
    reports: list[StudyReport], asked: list[SearchConfig], device: str, plugins: Plugins | None
) -> tuple[dict[str, Any] | None, list[str]]:
    """Run both models on the first study's validation images; return a note if that fails."""
    if any(report.model is None for report in reports):
        return None, ["one of them has no model yet"]
    try:
        plugins = plugins or load_plugins()
        config = asked[0].model_copy(update={"device": device})
        evaluator = ModelEvaluator.of(config, Path(reports[0].directory), plugins)
        scored = [evaluator.score(evaluator.load(Path(report.model))) for report in reports if report.model]
        return _renamed(gain(*scored)), []
    except AutomlError as error:
        return None, [f"their models were not compared image by image: {error.in_a_line()}"]
