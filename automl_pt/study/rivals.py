"""Rivals: optimisers with their published settings, untuned, each as a trial of the study; and what a search gains.

A search has to show that it beats what needs no search: trial 0, which is the documented default, and the rivals. These
compete by the rule of all trials. They do not count among the trials asked for, and the sampler does not learn from
them, because their settings may lie outside of the search space.

Where the user names none, a study has one (docs/evidence/rivals.md): it costs a proxy run, and a full run only in place
of another trial's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from automl_pt.config import SearchConfig
from automl_pt.core.text import printable
from automl_pt.plugins.optimizers import PUBLISHED, Optimizer
from automl_pt.runs.published import DEFAULT_LR, published, require_possible
from automl_pt.study.model_store import ranked
from automl_pt.study.pruning.rungs import DEFAULT_TRIAL, Rungs
from automl_pt.study.records import Gain, TrialRecord
from automl_pt.study.space.space import Space
from automl_pt.study.store.attributes import RIVAL
from automl_pt.study.store.attributes import rival as rival_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from automl_pt.plugins.manager import Plugins
    from automl_pt.study.pruning.base import Rule
    from automl_pt.study.store.trials import TrialStore


#: the rival of a study whose user names none: it costs no more than a run of the documented SGD
DEFAULT = "adamw"
#: in the study's attributes: the rivals that it began with by default
BEGUN_WITH = "rivals"


@dataclass(frozen=True)
class Rival:
    """An optimiser at its published learning rate; `settings` are the optimiser and the other published ones."""

    lr: float
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Return the optimiser's name."""
        return str(self.settings["optimizer"])

    def add(self, trial_store: TrialStore, space: Space) -> int:
        """Add it as a trial, which otherwise has the settings of trial 0; return its number."""
        from optuna.distributions import FloatDistribution

        params = {**space.default(), "lr": self.lr}
        distributions: dict[str, BaseDistribution] = space.distributions(params.get("backbone", space.backbones[0]))
        low, high = space.lr
        distributions["lr"] = FloatDistribution(min(low, self.lr), max(high, self.lr), log=True)
        for dimension in space.extra:
            name = dimension.name
            if dimension.backbone is not None or name not in self.settings:
                continue
            params[name] = self.settings[name]
            if not dimension.holds(self.settings[name]):
                del params[name], distributions[name]
        return trial_store.add(params, distributions, {RIVAL: dict(self.settings)})


def default_rivals(config: SearchConfig, rule: Rule, trial_store: TrialStore) -> tuple[str, ...]:
    """Return the rivals of a study whose user names none: those that it began with, and keeps.

    A study in which whole networks train has one, if it then costs little: its trials are first compared by proxy runs,
    which promote only some. None where the user names rivals.
    """
    if config.rivals is not None:
        return ()
    is_cheap = isinstance(rule, Rungs) and rule.rung_resources[0] < 1 and rule.promoted(config.trials) < config.trials
    trains_all = config.fine_tunes or (config.pretrained is False and config.weights is None)
    with trial_store.allocation_lock():
        about = trial_store.about()
        if BEGUN_WITH not in about:
            names = [DEFAULT] if is_cheap and trains_all and not trial_store.trials() else []
            trial_store.set_about({**about, BEGUN_WITH: names})
        return tuple(trial_store.about()[BEGUN_WITH])


def trusting(rule: Rule, trial_store: TrialStore, rivals: Sequence[Rival]) -> Rule:
    """Return the rule that trusts the study's first rival in place of trial 0, where it trusts a trial at all."""
    if not isinstance(rule, Rungs) or rule.trusted is None:
        return rule
    trials = trial_store.trials()
    there = [trial.number for trial in trials if rival_of(trial) is not None]
    coming = max(1, len(trials)) if rivals else DEFAULT_TRIAL
    return replace(rule, trusted=min(there, default=coming))


def make_rivals(
    config: SearchConfig, space: Space, plugins: Plugins, by_default: Sequence[str] = ()
) -> tuple[tuple[Rival, ...], list[str]]:
    """Return the rivals that the settings name, and notes on those that would repeat trial 0.

    Where the settings name none, they are those `by_default`. Raises ConfigError for one whose published settings
    contradict others.
    """
    found, notes = list[Rival](), list[str]()
    default = space.default()
    first = {**config.model_dump(include={"optimizer", *PUBLISHED}), **space.settings(default), "lr": default["lr"]}
    for name in by_default if config.rivals is None else config.rivals:
        rival = _rival(config, plugins.named(Optimizer, name))
        require_possible(config.model_copy(update=dict(rival.settings)), plugins.named(Optimizer, name))
        if {**first, **rival.settings, "lr": rival.lr} == first:
            if config.rivals is not None:
                notes.append(f"the rival {printable(name)} is trial 0 itself, and is not run twice")
            continue
        found.append(rival)
        values = ", ".join(f"{key} {value}" for key, value in rival.settings.items() if key != "optimizer")
        notes.append(
            f"the rival {printable(name)} runs beside the trials, with its published lr {rival.lr:g}; {values}"
        )
    return tuple(found), notes


def _rival(config: SearchConfig, optimizer: Optimizer) -> Rival:
    """Return an optimiser with what it publishes for the start of the trials; what the user gave counts before that."""
    values = published(optimizer, fine_tunes=config.fine_tunes)
    defaults = {name: SearchConfig.model_fields[name].default for name in PUBLISHED if name != "lr"}
    settings = {
        name: getattr(config, name) if name in config.model_fields_set else values.get(name, default)
        for name, default in defaults.items()
    }
    return Rival(float(values.get("lr", DEFAULT_LR)), {"optimizer": optimizer.name, **settings})


def best_unsearched(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """Return the best of trial 0 and the rivals: a complete one, else the one that came farthest; None without any."""
    candidates = [record for record in records if record.unsearched is not None]
    complete = [record for record in ranked(candidates) if record.state == "COMPLETE"]
    compared = [record for record in candidates if record.state == "PRUNED" and record.rank_loss is not None]
    farthest = sorted(compared, key=lambda one: (-(one.ranked_at or 0), one.rank_loss, one.number))
    return next(iter([*complete, *farthest]), None)


def gain_over(best: TrialRecord, over: TrialRecord, standard_error: float | None = None) -> Gain:
    """Return what `best` gains over a trial that needs no search; the error is that of their losses image by image."""
    what = over.unsearched or over.title
    if best.number < 0:
        return Gain(best.number, best.number, best.title, gained_nothing=True)
    if best.unsearched is not None:
        return Gain(best.number, best.number, f"{best.unsearched}, {best.title}", gained_nothing=True)
    if over.state == "COMPLETE" and over.value is not None and best.value is not None:
        return Gain(best.number, over.number, what, difference=over.value - best.value, standard_error=standard_error)
    at = over.ranked_at
    if at is None or at not in best.ranks:
        return Gain(best.number, over.number, what)
    return Gain(best.number, over.number, what, difference=over.ranks[at] - best.ranks[at], at=at)
