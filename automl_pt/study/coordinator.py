"""The main loop of a search: starts trials, receives their epochs, applies the pruning rule, keeps the best model.

All state that must outlive this process is in the trial store and in the trials' run directories. Memory holds only
what the executor does at the moment, which a restarted coordinator finds out again: a trial that is its own but not
running resumes from its checkpoint.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from automl_pt.config import SearchConfig
from automl_pt.core.seeds import derive_seed
from automl_pt.core.text import counted
from automl_pt.plugins.samplers import Suggest
from automl_pt.study.budget import Budget
from automl_pt.study.events import (
    EpochDone,
    Event,
    NewBest,
    Notice,
    Progress,
    TrialEnded,
    TrialPaused,
    TrialRanked,
    TrialStarted,
)
from automl_pt.study.executor.base import Engine, TrialSpec
from automl_pt.study.executor.messages import (
    EpochEnded,
    IteratorEnded,
    Message,
    ProxyRun,
    ProxyRunEnded,
    StudyFailed,
    TrialCrashed,
    TrialFailed,
    TrialLostPlace,
    TrialPlaced,
    TrialStopped,
    TrialWaits,
)
from automl_pt.study.floor import floor_notices
from automl_pt.study.linear_probes import LinearProbes, head_of
from automl_pt.study.model_store import ModelStore, publish_best
from automl_pt.study.plateau import Plateau
from automl_pt.study.pruning.base import Rule, TrialProgress
from automl_pt.study.records import chosen_by
from automl_pt.study.rivals import Rival
from automl_pt.study.space.next_trial import add_trial, trial_settings
from automl_pt.study.space.sampler import suggest
from automl_pt.study.space.space import Space
from automl_pt.study.store.attributes import Outcome, outcome, proxy_seconds
from automl_pt.study.store.attributes import rival as rival_of
from automl_pt.study.store.trials import EndState, TrialStore
from automl_pt.study.trial import RunningTrial, weights_loss
from automl_pt.training.result import EpochResult

#: how often a trial's process may die before the trial fails
CRASHES_ALLOWED = 3


@dataclass
class Coordinator:
    """Runs one search, from an open study until no trial is left; `stop` returns the number of a received signal."""

    config: SearchConfig
    trial_store: TrialStore
    model_store: ModelStore
    engine: Engine
    rule: Rule
    space: Space
    budget: Budget
    stop: Callable[[], int | None]
    suggest: Suggest = suggest
    #: None unless the search may end early on its own
    plateau: Plateau | None = None
    #: None if the search does not start from weights, or wants no linear probe
    linear_probes: LinearProbes | None = None
    #: optimisers with published settings, each a trial beside the others
    rivals: Sequence[Rival] = ()
    stopped: Literal["trials", "timeout", "flat", "interrupted"] = "trials"
    _running: dict[int, RunningTrial] = field(default_factory=dict)
    _noted: set[str] = field(default_factory=set)
    _has_notified: bool = False
    #: how many trials the study will have; fewer than requested when time is short
    _total: int = field(init=False)

    def __post_init__(self) -> None:
        self._total = self.asked

    @property
    def asked(self) -> int:
        """Return how many trials the study is to have: those asked for, and the rivals."""
        return self.config.trials + len({*self.trial_store.rivals(), *(rival.name for rival in self.rivals)})

    def run(self) -> Iterator[Event]:
        """Yield events until all trials have ended or the search must stop."""
        self.model_store.tidy(self.trial_store.models(), self.config.models_kept + 1)
        yield from self.keep_best()
        if self.linear_probes is not None:
            self.space = yield from self.linear_probes.run(self._must_stop, self.keep_best, self.space)
        self.budget.begin()
        while not self._must_stop():
            self.budget.slots = self.engine.slots  # places of a cluster come and go
            yield from self._hand_out()
            yield from self._notify_of_foreign_trials()
            if not self._running:
                if not self.trial_store.busy():
                    return
                time.sleep(0.2)  # trials of another coordinator decide what to do next
            for message in self.engine.wait(min(1.0, max(0.0, self.budget.left()))):
                yield from self._take(message)
            yield from map(Notice, self.engine.notices())

    def leave(self, grace: float) -> Iterator[Event]:
        """Let the running trials save and stop; process their last messages."""
        for message in self.engine.halt(grace):
            yield from self._take(message)
        for trial in list(self._running.values()):
            yield from self._pause(trial)

    def _must_stop(self) -> bool:
        if self.stop() is not None:
            self.stopped = "interrupted"
        elif self.budget.is_over():
            self.stopped = "timeout"
        else:
            return False
        return True

    # -- starting trials ----------------------------------------------------------------------------------------------

    def _hand_out(self) -> Iterator[Event]:
        """Fill the executor's free slots: first orphans, then promoted trials, then new ones."""
        with self.trial_store.allocation_lock():  # collect events under the lock, and yield them after releasing it
            told = list(self._prune_paused())
            while len(self._running) < self.engine.slots:
                event = self._next_start()
                if event is None:
                    break
                told.append(event)
        yield from told

    def _notify_of_foreign_trials(self) -> Iterator[Event]:
        """Report once that another program has added trials to the study."""
        if self.trial_store.foreign_trials and not self._has_notified:
            self._has_notified = True
            found = counted(self.trial_store.foreign_trials, "trial")
            yield Notice(f"another program has added {found} to this study: ignored, and not counted in --trials")

    def _prune_paused(self) -> Iterator[Event]:
        """End the paused trials that no result can promote any more; the end of one may decide about another."""
        progress_list, paused = self.trial_store.progress_list(), self.trial_store.paused()
        dropped = [one for one in paused if self.rule.verdict(one.number, progress_list, self._total) == "prune"]
        for trial in dropped:
            diverged = not all(map(math.isfinite, self.trial_store.trial_progress(trial.number).ranks.values()))
            reason = "diverged" if diverged else "pruned"
            yield from self._end(trial.number, "PRUNED", replace(outcome(trial), reason=reason))
        if dropped:
            yield from self._prune_paused()

    def _next_start(self) -> Event | None:
        trials, progress_list = self.trial_store.trials(), self.trial_store.progress_list()
        if self.stopped == "timeout":  # the first epochs are the slowest, so check again whether there is time
            self._total, self.stopped = self.asked, "trials"
            self._wants_another(progress_list)
        for trial in self.trial_store.orphans():
            if trial.number not in self._running:
                done = self.trial_store.trial_progress(trial.number).epoch
                if 0 < done < 1:  # proxy runs need no repetition
                    self.trial_store.pause(trial.number, replace(outcome(trial), reason="paused"))
                    continue
                # a trial that died before this epoch's verdict was applied stops there again
                return self._start(trial.number, done, self.rule.next_rung(math.nextafter(done, -1)))
        for trial in self.trial_store.paused():
            if self.rule.verdict(trial.number, progress_list, self._total) == "promote":
                done = self.trial_store.trial_progress(trial.number).epoch
                return self._start(trial.number, done, self.rule.next_rung(done))
        if len(trials) >= self._total:
            return None
        if self._wants_another(progress_list):
            number = add_trial(self.trial_store, self.space, self.rule, self.config.seed, self.suggest, self.rivals)
            return self._start(number, 0, self.rule.next_rung(0))
        return self._next_start()  # the study is smaller now, so paused trials may be promoted

    def _wants_another(self, progress_list: list[TrialProgress]) -> bool:
        """Return whether a further trial fits into the time and can still improve the result."""
        expected = self.rule.expected_epochs(progress_list, len(progress_list) + 1)
        if progress_list and not self.budget.allows(expected, self.rule.next_rung(0)):
            self._close("timeout")
            return False
        level = self.rule.next_rung(0)
        if self.plateau is not None and self.plateau.is_reached(progress_list, self.trial_store.records(), level):
            self._close("flat")
            return False
        return True

    def _close(self, reason: Literal["timeout", "flat"]) -> None:
        """Add no more trials, so that the study keeps its present size."""
        self._total, self.stopped = len(self.trial_store.trials()), reason

    def _start(self, number: int, done: float, next_rung: float) -> Event:
        trial = self.trial_store.trial(number)
        self.trial_store.own(number, self.trial_store.presence.owner)
        params = self.trial_store.params(trial)
        own = rival_of(trial)
        settings = trial_settings(self.space, number, params, seed=self.config.seed, rival=own)
        head = head_of(self.config.head, settings["backbone"], self.trial_store.probes())
        config = self.config.trial(**settings, head=head)
        # an epoch's loss is written last, so after a kill there may be a rank loss alone
        ranked = (point for point in self.trial_store.trial_progress(number).ranks if point < 1)
        known = frozenset([*trial.intermediate_values, *ranked])
        self._running[number] = RunningTrial(number, config.keep, known, proxy_seconds=proxy_seconds(trial))
        output, manifest = self.model_store.output(number), self.model_store.directory / "manifest.json"
        ranked_at = tuple(level for level in self.rule.rung_resources[:-1] if level >= next_rung)
        worth_saving = self.model_store.worth_saving(self.trial_store.records(), self.config.models_kept + 1)
        more: dict[str, Any] = {"worth_saving": worth_saving, "proxy_seed": derive_seed(self.config.seed, "proxy run")}
        self.engine.start(TrialSpec(number, config, output, next_rung, manifest, ranked_at, **more))
        return TrialStarted(number, params, done, next_rung, rival=None if own is None else str(own["optimizer"]))

    # -- receiving results --------------------------------------------------------------------------------------------

    def _take(self, message: Message) -> Iterator[Event]:
        if isinstance(message, StudyFailed):
            raise message.error
        trial = self._running.get(message.number)
        if trial is None:
            return
        match message:
            case TrialPlaced(place=place):
                self.trial_store.set_machine(trial.number, place.text())
            case EpochEnded(result=result):
                yield from self._take_epoch(trial, result)
            case ProxyRunEnded(result=proxy_run):
                yield from self._take_proxy_run(trial, proxy_run)
            case TrialWaits(epoch=epoch):
                yield from self._take_waiting(trial, epoch)
            case TrialStopped():
                yield from self._pause(trial)
            case TrialCrashed(reason=crash):
                yield from self._take_crash(trial, crash)
            case TrialLostPlace(reason=reason):
                yield Notice(f"trial {trial.number}: {reason}; it resumes from its last epoch")
                del self._running[trial.number]
            case TrialFailed(reason=reason):
                yield from self._end(trial.number, "FAIL", trial.outcome(f"failed: {reason}"))
            case IteratorEnded():
                yield from self._take_end(trial)

    def _take_epoch(self, trial: RunningTrial, result: EpochResult) -> Iterator[Event]:
        trial.results.append(result)
        if result.epoch in trial.known:
            return
        loss = weights_loss(result, self.config.keep)
        if math.isfinite(loss):
            self.trial_store.report(trial.number, result.epoch, loss, _finite(result.rank_loss))
        self.budget.count(result.seconds)
        self.budget.busy += result.save_seconds or 0.0
        yield EpochDone(trial.number, result)
        for note in result.notes:  # of what is done differently in several trials the first speaks
            if note not in self._noted:
                self._noted.add(note)
                yield Notice(f"trial {trial.number}: {note}")
        yield self._progress()

    def _take_proxy_run(self, trial: RunningTrial, probe: ProxyRun) -> Iterator[Event]:
        trial.proxy_run = probe
        if probe.epoch in trial.known or trial.has_diverged:
            return
        trial.proxy_seconds[probe.epoch] = probe.seconds
        self.trial_store.report_proxy_run(trial.number, probe.epoch, probe.rank_loss, trial.proxy_seconds)
        yield TrialRanked(trial.number, probe.epoch, probe.rank_loss)
        self.budget.count(probe.seconds, probe.epoch)
        yield self._progress()

    def _progress(self) -> Event:
        left = self.rule.expected_epochs(self.trial_store.progress_list(), self._total)
        done, seconds_left = self.budget.note_progress(left)
        return Progress(done, self.budget.seconds(), seconds_left)

    def _take_waiting(self, trial: RunningTrial, epoch: float) -> Iterator[Event]:
        if trial.has_diverged:
            self.engine.pause(trial.number)
            yield from self._end(trial.number, "PRUNED", trial.outcome("diverged"))
            return
        verdict = self.rule.verdict(trial.number, self.trial_store.progress_list(), self._total)
        if verdict == "promote":
            self.engine.resume(trial.number, self.rule.next_rung(epoch))
            return
        self.engine.pause(trial.number)
        if verdict == "prune":
            yield from self._end(trial.number, "PRUNED", trial.outcome("pruned"))
        else:
            yield from self._pause(trial)

    def _take_end(self, trial: RunningTrial) -> Iterator[Event]:
        reason = trial.results[-1].reason if trial.results else None
        if reason is None:
            yield from self._end(trial.number, "FAIL", trial.outcome("failed: it ended before its last epoch"))
        elif reason == "diverged":
            yield from self._end(trial.number, "PRUNED", trial.outcome("diverged"))
        else:
            yield from self._end(trial.number, "COMPLETE", trial.outcome(reason))

    def _take_crash(self, trial: RunningTrial, crash: str) -> Iterator[Event]:
        crashes = self.trial_store.count_crash(trial.number)
        if crashes >= CRASHES_ALLOWED:
            reason = f"failed: {crash}, {crashes} times"
            yield from self._end(trial.number, "FAIL", trial.outcome(reason))
        else:
            yield Notice(f"trial {trial.number}: {crash}; it resumes from its last epoch")
            del self._running[trial.number]

    def _pause(self, trial: RunningTrial) -> Iterator[Event]:
        """Release a trial, unless it had finished its last epoch when it was asked to stop."""
        if trial.results and trial.results[-1].reason is not None:
            yield from self._take_end(trial)
            return
        del self._running[trial.number]
        paused = trial.outcome("paused")
        self.trial_store.pause(trial.number, paused)
        yield TrialPaused(trial.number, self.trial_store.trial_progress(trial.number).epoch, paused.value)
        yield from self.keep_best()

    def _end(self, number: int, state: EndState, ended: Outcome) -> Iterator[Event]:
        self._running.pop(number, None)
        self.trial_store.end(number, state, ended)
        yield TrialEnded(number, state, ended.reason, ended.value, ended.epochs, ended.seconds)
        yield from floor_notices(self.trial_store, number)
        yield from self.keep_best()
        self.model_store.tidy(self.trial_store.models(), self.config.models_kept + 1)

    def keep_best(self) -> Iterator[Event]:
        """Publish the best model and report it, unless it is published already."""
        best = publish_best(self.trial_store, self.model_store)
        if best is not None:
            value, objective = math.nan if best.value is None else best.value, self.config.objective
            yield NewBest(best.number, value, str(self.model_store.model), chosen_by(objective, best.metrics))


def _finite(loss: float | None) -> float | None:
    return loss if loss is not None and math.isfinite(loss) else None
