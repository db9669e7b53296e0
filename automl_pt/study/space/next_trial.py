"""Adds a new trial at the next point, and says which settings its run has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from automl_pt.core.errors import PluginError
from automl_pt.core.seeds import derive_seed
from automl_pt.core.text import printable
from automl_pt.plugins.manager import Plugins
from automl_pt.plugins.samplers import Sampler, Suggest
from automl_pt.study.executor import failures
from automl_pt.study.pruning.base import Rule
from automl_pt.study.rivals import Rival
from automl_pt.study.space.sampler import suggest
from automl_pt.study.space.space import Space
from automl_pt.study.store.attributes import outcome
from automl_pt.study.store.attributes import rival as rival_of
from automl_pt.study.store.trials import TrialStore

#: in the study's attributes: the best settings of the study that it starts from
EARLY = "early"
OUT_OF_MEMORY = f"failed: {failures.OUT_OF_MEMORY}"


def chosen_sampler(name: str, plugins: Plugins) -> Suggest:
    """Return the function of the sampler called `name`; a plugin's is watched, and its points are checked.

    Raises UnknownNameError with near names.
    """
    sampler = plugins.named(Sampler, name)
    if plugins.is_own(plugins.of_kind(Sampler), name):
        return sampler.suggest

    def watched(
        space: Space, params: Mapping[int, Mapping[str, Any]], ranking: Sequence[int], *, seed: int, number: int
    ) -> Mapping[str, Any]:
        with plugins.running(plugins.of_kind(Sampler), name):
            found = sampler.suggest(space, params, ranking, seed=seed, number=number)
        if fault := space.fault(found):
            raise PluginError(
                f"the sampler {name} chose no point of the search space",
                given=f"{plugins.owner_label(plugins.of_kind(Sampler), name)}: for trial {number}, {fault}",
                remedy="correct the plugin, or resume the study with --sampler tpe; "
                "`automl_pt.testing.check_sampler` finds the fault",
            )
        return found

    return watched


def early_settings(
    trial_store: TrialStore, find: Callable[[], Mapping[str, Any] | None], space: Space
) -> tuple[dict[str, Any] | None, str | None]:
    """Return the settings of an earlier study's best trial, which are kept with this study, and a note on them."""
    with trial_store.allocation_lock():
        about = trial_store.about()
        if EARLY not in about:
            found = find()
            trial_store.set_about({**about, EARLY: None if found is None else dict(found)})
        early = trial_store.about()[EARLY]
    point = None if early is None else space.nearest(early)
    if early is None or trial_store.trials():
        return early, None
    if point is None or point == space.default():
        return (
            early,
            "the earlier study's best settings are trial 0 itself, or not searched here: no trial repeats them",
        )
    shown = ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in point.items()
    )
    moved = "" if point.items() <= early.items() else ", the nearest that are searched here"
    return early, f"the first trial after the default has the earlier study's best settings: {printable(shown)}{moved}"


def with_early_trial(suggest: Suggest, early: Mapping[str, Any] | None) -> Suggest:
    """Return a function that chooses as `suggest`, but for the first trial after the default the point nearest `early`.

    `early` are the best settings of the study that this one starts from; the default is not repeated.
    """
    if early is None:
        return suggest

    def chosen(
        space: Space, params: Mapping[int, Mapping[str, Any]], ranking: Sequence[int], *, seed: int, number: int
    ) -> Mapping[str, Any]:
        point = space.nearest(early) if number == 1 else None
        if point is None or point == space.default():
            return suggest(space, params, ranking, seed=seed, number=number)
        return point

    return chosen


def add_trial(
    trial_store: TrialStore,
    space: Space,
    rule: Rule,
    seed: int,
    suggest: Suggest = suggest,
    rivals: Sequence[Rival] = (),
) -> int:
    """Add a trial at the point that the sampler asks for, and return its number; no batch that was too large again.

    Trial 0 is the documented default, whatever the sampler; the rivals that the study lacks follow. The sampler sees
    neither them nor their numbers, so that it asks for the same points with and without them.
    """
    trials, smaller = trial_store.trials(), space
    for trial in trials:
        ended = outcome(trial)
        if ended is not None and ended.reason == OUT_OF_MEMORY:
            smaller = smaller.without(trial.params["batch_size"])
    there = trial_store.rivals()
    for rival in rivals if trials else ():
        if rival.name not in there:
            return rival.add(trial_store, smaller)
    taken = [trial.number for trial in trials if rival_of(trial) is not None]
    seen = {trial.number: trial.number - sum(number < trial.number for number in taken) for trial in trials}
    known = {seen[trial.number]: trial_store.params(trial) for trial in trials if trial.number not in taken}
    ranking = [seen[number] for number in rule.ranking(trial_store.progress_list()) if number not in taken]
    params = suggest(smaller, known, ranking, seed=seed, number=len(known)) if trials else smaller.default()
    return trial_store.add(params, space.distributions(params.get("backbone", space.backbones[0])))


def trial_settings(
    space: Space, number: int, params: Mapping[str, Any], *, seed: int = 0, rival: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the arguments of `SearchConfig.trial` for a trial's run; `seed` is the study's.

    `rival` are the settings of a rival, which count before the searched ones.
    """
    backbone = params.get("backbone", space.backbones[0])
    return {
        "backbone": backbone,
        "lr": params["lr"],
        "batch_size": params["batch_size"],
        "seed": derive_seed(seed, "trial", number),
        "backbone_options": space.options(params),
        "searched": {**space.settings(params), **(rival or {})},
    }
