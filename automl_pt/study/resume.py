"""What a study was made with, and whether it can go on with what is asked for now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_pt.config import SearchConfig, as_made, make
from automl_pt.core.errors import StudyError
from automl_pt.core.text import counted
from automl_pt.plugins.provenance import how_to_get, missing_plugins, told
from automl_pt.study.store.study_files import damaged, read_object

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from automl_pt.plugins.manager import Plugins
    from automl_pt.study.objective import SearchData
    from automl_pt.study.pruning.base import TrialProgress
    from automl_pt.study.space.dimensions import Dimension

#: settings that say where, with what or how long a study is computed, not what is computed
FREE = frozenset(
    ["dataset", "root", "download", "device", "threads", "plugins", "trackers", "cache_dir", "checkpoint_minutes"]
    + ["trials", "timeout", "name", "storage", "workers", "trial_timeout", "keep_models", "stop_when_flat", "pruner"]
    + ["refit", "ensemble", "average"]
    + ["lr", "batch_sizes", "backbones", "report", "max_params", "max_ms"]
)

#: how trials come to a rung within the first epoch; earlier versions compared the trials themselves there
FIRST_RUNG = "miniature"


def as_begun(config: SearchConfig, directory: Path) -> SearchConfig:
    """Return the settings with the start, and the learning rates from weights, of the study in `directory`.

    Only what nobody asked for is taken from there. Earlier versions started from random weights unless they were told
    otherwise, and wrote that down.
    """
    path = directory / "study.json"
    found = read_object(path).get("asked", {})
    if not isinstance(found, dict):
        raise damaged(path, "`asked` is no object")
    kept: dict[str, Any] = {}
    if config.pretrained is None and config.weights is None and found.get("pretrained") is not None:
        kept["pretrained"] = found["pretrained"]
    if "lr" not in config.model_fields_set and found.get("lr") and (found.get("pretrained") or found.get("weights")):
        kept["lr"] = found["lr"]
    if not kept:
        return config
    return make(SearchConfig, {**config.model_dump(exclude_unset=True), **kept}, source=str(path))


def describe(config: SearchConfig, fingerprint: str, version: str) -> dict[str, Any]:
    """Return what is kept of a study's making, as plain values."""
    return {
        "version": version,
        "fingerprint": fingerprint,
        "settings": config.model_dump(mode="json", exclude=set(FREE)),
        "backbones": list(config.backbones),
        "lr": list(config.lr),
        "first_rung": FIRST_RUNG,
    }


def describe_search_data(search_data: SearchData) -> dict[str, Any]:
    """Return what is kept of the plugins a study uses, and of the options of backbones it searches."""
    from optuna.distributions import distribution_to_json

    searched = {dimension.name: distribution_to_json(dimension.distribution) for dimension in search_data.dimensions}
    plugins = [dict(plugin) for plugin in search_data.plugins]
    return {"plugins": plugins, "options": searched, "classes": search_data.classes}


def in_order(
    found: Mapping[str, Any], config: SearchConfig, search_data: SearchData
) -> tuple[SearchConfig, tuple[Dimension, ...]]:
    """Put the backbones in the order in which they came to the study `found`, and name their options as it does.

    Its first stays the default's, and points of the space-filling start are places in the list, so that the order in
    which names are given means nothing once a study has begun. The options of one that was alone bear no prefix.
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
    """Return the backbone of those trials that name none, None where all trials have the same."""
    return backbones[0] if len(set(backbones)) > 1 else None


def require_plugins(used: Sequence[Mapping[str, Any]], plugins: Plugins, *, where: str) -> None:
    """Raise StudyError, with the line that installs them, where plugins that a study uses are not loaded."""
    missing = missing_plugins(used, plugins)
    if missing:
        raise StudyError(
            "a study goes on with the plugins it was made with",
            given=f"{where}: without {told(missing)}",
            remedy=how_to_get(missing),
        )


def other_versions(used: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say which plugins have another version, or as files another content, than when the study was last opened."""
    versions = {plugin["name"]: plugin["version"] for plugin in now}
    return [
        f"the plugin {plugin['name']} was version {plugin['version']} and is {versions[plugin['name']]}: "
        "trials before and after may not be comparable"
        for plugin in used
        # earlier versions of this program kept nothing of a file's content
        if plugin["version"] and versions.get(plugin["name"], plugin["version"]) != plugin["version"]
    ]


def require_comparable(found: Mapping[str, Any], wanted: Mapping[str, Any], *, where: str) -> None:
    """Raise StudyError, naming each difference, where results would not be comparable with those that are there."""
    were, are = as_made(found["settings"]), wanted["settings"]
    differences = [
        f"{key} was {were.get(key)!r} and is {are.get(key)!r}"
        for key in sorted({*were, *are})
        # a study made before a setting existed was made with its default
        if were.get(key, _default(key)) != are.get(key)
    ]
    if found["fingerprint"] != wanted["fingerprint"]:
        differences.insert(0, "the training or validation images, or their split, are others")
    differences += _backbones(found, wanted)
    if wanted["lr"][0] > found["lr"][0] or wanted["lr"][1] < found["lr"][1]:
        differences.append(
            "lr was {:g}:{:g} and is {:g}:{:g}: a range may grow, not shrink".format(*found["lr"], *wanted["lr"])
        )
    if differences:
        raise StudyError(
            "a study goes on with what it was made with; only trials, timeout, ranges and backbones may grow",
            given=f"{where}: {'; '.join(differences)}",
            remedy="give the same settings again, or another --name to begin a new study",
        )


def _backbones(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Say how the backbones differ, or their options; more backbones, with options of their own, are no difference."""
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
    """Raise StudyError where a study that no search of ours has begun holds trials: nothing is known of these."""
    if foreign_trials:
        raise StudyError(
            "a search goes on with a study that a search has begun",
            given=f"{where}: the study {name!r} holds {counted(foreign_trials, 'trial')} of another program",
            remedy="give another --name, or another --storage",
        )


def require_unused(directory: Path, *, where: str) -> None:
    """Raise StudyError where a study that begins now would take over the trials that another one left in its folder.

    A trial goes on with the run it finds under its number: one of other parameters, of another study.
    """
    left, about = list((directory / "trials").glob("*/run.json")), directory / "study.json"
    if left:
        begun = {"name": "?", "storage": "a storage", **read_object(about)}
        raise StudyError(
            "a folder holds the trials of one study",
            given=f"{directory}: the runs of {counted(len(left), 'trial')} of the study {begun['name']!r}, begun in "
            f"{begun['storage']}, which is not in {where} under the name that is asked for",
            remedy="give the folder its name back, and the --storage that the study was begun with; or begin anew, "
            "with another --name or once the folder is removed",
        )


def require_folder(trials: Sequence[FrozenTrial], directory: Path, *, where: str) -> None:
    """Raise StudyError where a study has complete trials, but its folder, with what they kept, is elsewhere or gone.

    Others may have ended before they left anything in a folder.
    """
    complete = sum(trial.state.name == "COMPLETE" for trial in trials)
    if complete and not (directory / "trials").exists():
        raise StudyError(
            "a study goes on in the folder that holds its trials' runs",
            given=f"{directory}: no runs are there, and in {where} {counted(complete, 'trial')} of the study "
            "have come to their end",
            remedy="start the command where it was started before, or put the folder back; or give another --name",
        )


def require_same_rungs(
    progress_list: Sequence[TrialProgress],
    rung_resources: Sequence[float],
    trials: int,
    *,
    where: str,
    first_rung: str | None = FIRST_RUNG,
) -> None:
    """Raise StudyError where trials were compared at other points than `rung_resources`, and there is something left to decide.

    A loss at one rung says nothing about a trial's place at another: a rung of an earlier version, or another rule's.
    `first_rung` is how the study compares trials within the first epoch; None where it was not yet written.
    """
    known = {point for trial_progress in progress_list for point in trial_progress.ranks}
    points = sorted(point for point in known if point not in rung_resources or (point < 1 and first_rung != FIRST_RUNG))
    is_over = len(progress_list) >= trials and all(trial_progress.end for trial_progress in progress_list)
    if rung_resources and points and not is_over:
        raise StudyError(
            "a study goes on with the rungs it was begun with",
            given=f"{where}: trials were compared after {_epochs(points)} epochs, and now are after "
            f"{_epochs(rung_resources[:-1])} epochs"
            + ("" if first_rung == FIRST_RUNG else ", the first time in miniature"),
            remedy="give another --name to begin a new study, or `--pruner none`, which runs all trials in full",
        )


def _epochs(points: Sequence[float]) -> str:
    return ", ".join(f"{point:.3g}" for point in points)


def _default(setting: str) -> Any:
    field = SearchConfig.model_fields.get(setting)
    if field is None or field.is_required():
        return None
    return list(field.default) if isinstance(field.default, tuple) else field.default
