"""Stores what a study was created with, and decides whether it can be resumed with other settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_pt.config import PLACE, SHARED, SearchConfig, Settings, TrainConfig, as_made, make
from automl_pt.core.errors import StudyError
from automl_pt.core.search_entries import SearchEntry, parse_entries
from automl_pt.core.text import counted
from automl_pt.plugins.provenance import how_to_get, missing_plugins, told
from automl_pt.study.store.study_files import damaged, read_object

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from automl_pt.plugins.manager import Plugins
    from automl_pt.study.objective import SearchData
    from automl_pt.study.pruning.base import TrialProgress
    from automl_pt.study.space.dimensions import Dimension

#: settings that only a search has
_OWN = SearchConfig.model_fields.keys() - Settings.model_fields.keys()
#: settings that affect where, with what or how long a study is computed, not its results; every study is stored with
#: the three that are not free
FREE = frozenset({*PLACE, *_OWN} - {"cuda_graph", "compile", "probe"})

#: how trials reach a rung within the first epoch; earlier versions compared the trials themselves there
FIRST_RUNG = "miniature"


def as_begun(config: SearchConfig, directory: Path) -> SearchConfig:
    """Return the settings with the start, and the learning rates from weights, of the study in `directory`.

    Only settings that the user did not give are taken from there. Earlier versions started from random weights by
    default, and stored that.
    """
    path = directory / "study.json"
    found = read_object(path).get("asked", {})
    if not isinstance(found, dict):
        raise damaged(path, "`asked` is not an object")
    kept: dict[str, Any] = {}
    if config.pretrained is None and config.weights is None and found.get("pretrained") is not None:
        kept["pretrained"] = found["pretrained"]
    is_one_range = len(config.tried("optimizer")) == 1
    if (
        is_one_range
        and "lr" not in config.model_fields_set
        and found.get("lr")
        and (found.get("pretrained") or found.get("weights"))
    ):
        kept["lr"] = found["lr"]
    if not kept:
        return config
    return make(SearchConfig, {**config.model_dump(exclude_unset=True), **kept}, source=str(path))


def describe(config: SearchConfig, fingerprint: str, version: str) -> dict[str, Any]:
    """Return what is stored about how a study was created, as plain values."""
    return {
        "version": version,
        "fingerprint": fingerprint,
        "settings": config.model_dump(mode="json", exclude=set(FREE)),
        "backbones": list(config.backbones),
        "lr": list(config.lr),
        "search": [entry.text() for entry in config.entries],
        "first_rung": FIRST_RUNG,
    }


def describe_search_data(search_data: SearchData) -> dict[str, Any]:
    """Return what is stored about a study's plugins, and the searched options of its backbones."""
    from optuna.distributions import distribution_to_json

    searched = {dimension.name: distribution_to_json(dimension.distribution) for dimension in search_data.dimensions}
    plugins = [dict(plugin) for plugin in search_data.plugins]
    optimizers = {name: own.to_dict() for name, own in search_data.optimizers.items()}
    return {"plugins": plugins, "options": searched, "classes": search_data.classes, "optimizers": optimizers}


def in_order(
    found: Mapping[str, Any], config: SearchConfig, search_data: SearchData
) -> tuple[SearchConfig, tuple[Dimension, ...]]:
    """Put the backbones in the order in which they joined the stored study, and name their options as it does.

    Its first backbone remains the default's, and the space-filling start refers to places in the list, so the order in
    which names are given has no effect once a study exists. The options of a single backbone have no prefix.
    """
    before = [name for name in found.get("backbones", ()) if name in config.backbones]
    names = tuple(dict.fromkeys([*before, *config.backbones]))
    known = found.get("options", {})
    dimensions = (
        replace(one, name=one.option) if before[:1] == [one.backbone] and one.option in known else one
        for one in search_data.dimensions
    )
    order = tuple(sorted(dimensions, key=lambda one: names.index(one.backbone)))
    return config.model_copy(update={"backbones": names}), order


def first_of_several(backbones: Sequence[str]) -> str | None:
    """Return the backbone of the trials that name none; None if all trials have the same."""
    return backbones[0] if len(set(backbones)) > 1 else None


def require_plugins(used: Sequence[Mapping[str, Any]], plugins: Plugins, *, where: str) -> None:
    """Raise StudyError, with the command that installs them, if plugins of a study are not loaded."""
    missing = missing_plugins(used, plugins)
    if missing:
        raise StudyError(
            "a plugin of this study is not loaded",
            given=f"{where}: without {told(missing)}",
            remedy=how_to_get(missing),
        )


def other_versions(used: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> list[str]:
    """Report plugins whose version, or whose file's content, differs from when the study was last opened."""
    versions = {plugin["name"]: plugin["version"] for plugin in now}
    return [
        f"the plugin {plugin['name']} was version {plugin['version']} and is {versions[plugin['name']]}: "
        "trials before and after may not be comparable"
        for plugin in used
        # earlier versions did not store the content of files
        if plugin["version"] and versions.get(plugin["name"], plugin["version"]) != plugin["version"]
    ]


def require_comparable(found: Mapping[str, Any], wanted: Mapping[str, Any], *, where: str) -> None:
    """Raise StudyError that names each difference if results would not be comparable with the stored ones."""
    were, are = as_made(found["settings"]), wanted["settings"]
    differences = [
        f"{key} was {were.get(key)!r} and is {are.get(key)!r}"
        for key in sorted({*were, *are})
        # a setting newer than the study has its default there
        if were.get(key, _default(key)) != are.get(key)
    ]
    if found["fingerprint"] != wanted["fingerprint"]:
        differences.insert(0, "the training or validation images, or their split, have changed")
    differences += _backbones(found, wanted)
    if wanted["lr"][0] > found["lr"][0] or wanted["lr"][1] < found["lr"][1]:
        differences.append(
            "lr was {:g}:{:g} and is {:g}:{:g}: a range may grow, not shrink".format(*found["lr"], *wanted["lr"])
        )
    differences += _searched(found.get("search", ()), wanted["search"])
    differences += _optimizers(found.get("optimizers", {}), wanted["optimizers"])
    if differences:
        raise StudyError(
            "this study exists with other settings; only trials, timeout, ranges and backbones may grow",
            given=f"{where}: {'; '.join(differences)}",
            remedy="give the same settings again, or another --name to start a new study",
        )


def _searched(found: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Say how the searched settings differ: each stays one, with its scale or choices, in a range that may grow."""
    (before, _), (now, _) = (parse_entries(texts, TrainConfig, SHARED) for texts in (found, wanted))
    were, are = {entry.name: entry for entry in before}, {entry.name: entry for entry in now}
    return [
        f"{name} was {_range(were.get(name))} and is {_range(are.get(name))}: a range may grow, not shrink"
        for name in sorted(were.keys() | are.keys())
        if name not in were or name not in are or not are[name].holds(were[name])
    ]


def _optimizers(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Say which searched optimiser would have other rates or settings than the study's trials of it.

    Its own default rate is trial 0's alone, which the study has.
    """
    return [
        f"{key} of the optimizer {name} was {found[name].get(key)} and is {wanted[name].get(key)}"
        for name in sorted(found.keys() & wanted.keys())
        for key in sorted(wanted[name].keys() - {"default_lr"})
        if found[name].get(key) != wanted[name].get(key)
    ]


def _range(entry: SearchEntry | None) -> str:
    return "not searched" if entry is None else f"searched as {entry.text().partition('=')[2]}"


def _backbones(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return differences in the backbones or their options; added backbones, with their options, are allowed."""
    if not set(found["backbones"]) <= set(wanted["backbones"]):
        names = ", ".join(found["backbones"]), ", ".join(wanted["backbones"])
        return ["backbones were {} and are {}: a list may grow, not shrink".format(*names)]
    were, are = found.get("options", {}), wanted.get("options", {})
    added = set(wanted["backbones"]) - set(found["backbones"])
    return [
        f"the searched option {name} was {were.get(name, 'not searched')} and is {are.get(name, 'not searched')}"
        for name in sorted({*were, *are})
        if were.get(name) != are.get(name) and (name in were or name.rpartition(".")[0] not in added)
    ]


def require_own(foreign_trials: int, name: str, *, where: str) -> None:
    """Raise StudyError if a study that no search of ours has started holds trials of unknown origin."""
    if foreign_trials:
        raise StudyError(
            "the study of this name was not created by a search",
            given=f"{where}: the study {name!r} holds {counted(foreign_trials, 'trial')} of another program",
            remedy="choose another --name, or another --storage",
        )


def require_unused(directory: Path, *, where: str) -> None:
    """Raise StudyError if a new study would reuse the trial folders of another one.

    A trial resumes the run in the folder of its number, which has another study's parameters.
    """
    left, about = list((directory / "trials").glob("*/run.json")), directory / "study.json"
    if left:
        begun = {"name": "?", "storage": "a storage", **read_object(about)}
        raise StudyError(
            "this folder holds the trials of another study",
            given=f"{directory}: the runs of {counted(len(left), 'trial')} of the study {begun['name']!r}, begun in "
            f"{begun['storage']}, which is not in {where} under the requested name",
            remedy="rename the folder back, and give the --storage that the study started with; or start a new study, "
            "with another --name or after removing the folder",
        )


def require_folder(trials: Sequence[FrozenTrial], directory: Path, *, where: str) -> None:
    """Raise StudyError if a study has complete trials, but the folder of their runs is elsewhere or removed.

    Other trials may have ended before they wrote to a folder.
    """
    complete = sum(trial.state.name == "COMPLETE" for trial in trials)
    if complete and not (directory / "trials").exists():
        raise StudyError(
            "the folder of this study's runs is missing",
            given=f"{directory}: it has no runs, and in {where} {counted(complete, 'trial')} of the study are complete",
            remedy="start the command where it was started before, or restore the folder; or choose another --name",
        )


def require_same_rungs(
    progress_list: Sequence[TrialProgress],
    rung_resources: Sequence[float],
    trials: int,
    *,
    where: str,
    first_rung: str | None = FIRST_RUNG,
) -> None:
    """Raise StudyError where trials were compared at other points than `rung_resources` and some are not decided.

    Losses at one rung do not rank trials at another, such as one of an earlier version or of another rule.
    `first_rung` is how the study compares trials within the first epoch; None if it was not yet stored.
    """
    known = {point for trial_progress in progress_list for point in trial_progress.ranks}
    points = sorted(point for point in known if point not in rung_resources or (point < 1 and first_rung != FIRST_RUNG))
    is_over = len(progress_list) >= trials and all(trial_progress.end for trial_progress in progress_list)
    if rung_resources and points and not is_over:
        raise StudyError(
            "this study compared its trials at other rungs",
            given=f"{where}: trials were compared after {_epochs(points)} epochs, and now are after "
            f"{_epochs(rung_resources[:-1])} epochs"
            + ("" if first_rung == FIRST_RUNG else ", the first time by a proxy run"),
            remedy="choose another --name to start a new study, or `--pruner none`, which runs all trials in full",
        )


def _epochs(points: Sequence[float]) -> str:
    return ", ".join(f"{point:.3g}" for point in points)


def _default(setting: str) -> Any:
    field = SearchConfig.model_fields.get(setting)
    if field is None or field.is_required():
        return None
    return list(field.default) if isinstance(field.default, tuple) else field.default
