"""The main loop of a search: starts trials, receives their epochs, applies the pruning rule, keeps the best model.

All state that must outlive this process is in the trial store and in the trials' run directories. Memory holds only
what the executor does at the moment, which a restarted coordinator finds out again: a trial that is its own but not
running resumes from its checkpoint.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from automl_pt.config import SearchConfig
from automl_pt.core.text import counted
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
from automl_pt.study.executor.base import Engine, Probe, Report, TrialSpec
from automl_pt.study.floor import floor_notices
from automl_pt.study.model_store import Shelf
from automl_pt.study.plateau import Flatness
from automl_pt.study.probing import Probing
from automl_pt.study.pruning.base import Rule, Standing
from automl_pt.study.publishing import publish_best
from automl_pt.study.space.next_trial import add_trial, trial_config
from automl_pt.study.space.space import Space
from automl_pt.study.store.attributes import Outcome, outcome, probe_seconds
from automl_pt.study.store.trials import EndState, Ledger
from automl_pt.study.trial import Running, weights_loss
from automl_pt.training.result import EpochResult

#: how often a trial's process may die before the trial fails
CRASHES_ALLOWED = 3


@dataclass
class Coordinator:
    """Runs one search, from an open study until no trial is left; `stop` returns the number of a received signal."""

    config: SearchConfig
    ledger: Ledger
    shelf: Shelf
    engine: Engine
    rule: Rule
    space: Space
    budget: Budget
    stop: Callable[[], int | None]
    #: None unless the search may stop early on a plateau
    flatness: Flatness | None = None
    #: None if the search does not start from weights, or wants no linear probe
    probing: Probing | None = None
    stopped: Literal["trials", "timeout", "flat", "interrupted"] = "trials"
    _running: dict[int, Running] = field(default_factory=dict)
    _has_told: bool = False
    #: how many trials the study will have; fewer than requested when time is short
    _total: int = field(init=False)

    def __post_init__(self) -> None:
        self._total = self.config.trials

    def run(self) -> Iterator[Event]:
        """Yield events until all trials have ended or the search must stop."""
        self.shelf.tidy(self.ledger.models(), self.config.models_kept + 1)
        yield from self.keep_best()
        if self.probing is not None:
            self.space = yield from self.probing.run(self._must_stop, self.keep_best, self.space)
        self.budget.begin()
        while not self._must_stop():
            yield from self._hand_out()
            yield from self._tell_of_strangers()
            if not self._running:
                if not self.ledger.busy():
                    return
                time.sleep(0.2)  # trials of another coordinator decide what to do next
            for report in self.engine.wait(min(1.0, max(0.0, self.budget.left()))):
                yield from self._take(report)

    def leave(self, grace: float) -> Iterator[Event]:
        """Let the running trials save and stop; process their last messages."""
        for report in self.engine.halt(grace):
            yield from self._take(report)
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
        with self.ledger.turn():  # collect events under the lock, and yield them after releasing it
            told = list(self._drop_paused())
            while len(self._running) < self.engine.slots:
                event = self._next_start()
                if event is None:
                    break
                told.append(event)
        yield from told

    def _tell_of_strangers(self) -> Iterator[Event]:
        """Report once that another program has added trials to the study."""
        if self.ledger.strangers and not self._has_told:
            self._has_told = True
            found = counted(self.ledger.strangers, "trial")
            yield Notice(f"another program has added {found} to this study: ignored, and not counted in --trials")

    def _drop_paused(self) -> Iterator[Event]:
        """End the paused trials that no result can promote any more."""
        standings = self.ledger.standings()
        for trial in self.ledger.paused():
            if self.rule.verdict(trial.number, standings, self._total) == "prune":
                diverged = not all(map(math.isfinite, self.ledger.standing(trial.number).ranks.values()))
                reason = "diverged" if diverged else "pruned"
                yield from self._end(trial.number, "PRUNED", replace(outcome(trial), reason=reason))

    def _next_start(self) -> Event | None:
        trials, standings = self.ledger.trials(), self.ledger.standings()
        if self.stopped == "timeout":  # the first epochs are the slowest, so check again whether there is time
            self._total, self.stopped = self.config.trials, "trials"
            self._wants_another(standings)
        for trial in self.ledger.orphans():
            if trial.number not in self._running:
                done = self.ledger.standing(trial.number).epoch
                if 0 < done < 1:  # proxy runs need no repetition
                    self.ledger.pause(trial.number, replace(outcome(trial), reason="paused"))
                    continue
                # a trial that died before this epoch's verdict was applied stops there again
                return self._start(trial.number, done, self.rule.until(math.nextafter(done, -1)))
        for trial in self.ledger.paused():
            if self.rule.verdict(trial.number, standings, self._total) == "promote":
                done = self.ledger.standing(trial.number).epoch
                return self._start(trial.number, done, self.rule.until(done))
        if len(trials) >= self._total:
            return None
        if self._wants_another(standings):
            number = add_trial(self.ledger, self.space, self.rule, self.config.seed)
            return self._start(number, 0, self.rule.until(0))
        return self._next_start()  # the study is smaller now, so paused trials may be promoted

    def _wants_another(self, standings: list[Standing]) -> bool:
        """Return whether a further trial fits into the time and can still improve the result."""
        expected = self.rule.expected_epochs(standings, len(standings) + 1)
        if standings and not self.budget.allows(expected, self.rule.until(0)):
            self._close("timeout")
            return False
        level = self.rule.until(0)
        if self.flatness is not None and self.flatness.is_flat(standings, self.ledger.records(), level):
            self._close("flat")
            return False
        return True

    def _close(self, reason: Literal["timeout", "flat"]) -> None:
        """Add no more trials, so that the study keeps its present size."""
        self._total, self.stopped = len(self.ledger.trials()), reason

    def _start(self, number: int, done: float, until: float) -> Event:
        trial = self.ledger.trial(number)
        self.ledger.own(number, self.ledger.presence.owner)
        params = self.ledger.params(trial)
        config = trial_config(self.config, self.space, number, params, self.ledger.probes())
        # an epoch's loss is written last, so after a kill there may be a rank loss alone
        ranked = (point for point in self.ledger.standing(number).ranks if point < 1)
        known = frozenset([*trial.intermediate_values, *ranked])
        self._running[number] = Running(number, config, known, probe_seconds=probe_seconds(trial))
        output, manifest = self.shelf.output(number), self.shelf.directory / "manifest.json"
        ranked_at = tuple(level for level in self.rule.levels[:-1] if level >= until)
        self.engine.start(TrialSpec(number, config, output, until, manifest, ranked_at))
        return TrialStarted(number, params, done, until)

    # -- receiving results --------------------------------------------------------------------------------------------

    def _take(self, report: Report) -> Iterator[Event]:
        trial = self._running.get(report.number)
        if report.fatal is not None:
            raise report.fatal
        if trial is None:
            return
        if report.epoch is not None:
            yield from self._take_epoch(trial, report.epoch)
        elif report.probe is not None:
            yield from self._take_probe(trial, report.probe)
        elif report.held is not None:
            yield from self._take_held(trial, report.held)
        elif report.left:
            yield from self._pause(trial)
        elif report.crash is not None:
            yield from self._take_crash(trial, report.crash)
        elif report.failure is not None:
            yield from self._end(trial.number, "FAIL", trial.outcome(f"failed: {report.failure}"))
        else:
            yield from self._take_end(trial)

    def _take_epoch(self, trial: Running, result: EpochResult) -> Iterator[Event]:
        trial.results.append(result)
        if result.epoch in trial.known:
            return
        loss = weights_loss(result, self.config.keep)
        if math.isfinite(loss):
            self.ledger.report(trial.number, result.epoch, loss, _finite(result.rank_loss))
        self.budget.count(result.seconds)
        self.budget.busy += result.save_seconds or 0.0
        yield EpochDone(trial.number, result)
        yield self._progress()

    def _take_probe(self, trial: Running, probe: Probe) -> Iterator[Event]:
        trial.probe = probe
        if probe.epoch in trial.known or trial.has_diverged:
            return
        trial.probe_seconds[probe.epoch] = probe.seconds
        self.ledger.rank_first(trial.number, probe.epoch, probe.rank_loss, trial.probe_seconds)
        yield TrialRanked(trial.number, probe.epoch, probe.rank_loss)
        self.budget.count(probe.seconds, probe.epoch)
        yield self._progress()

    def _progress(self) -> Event:
        left = self.rule.expected_epochs(self.ledger.standings(), self._total)
        done, seconds_left = self.budget.note_progress(left)
        return Progress(done, self.budget.seconds(), seconds_left)

    def _take_held(self, trial: Running, epoch: float) -> Iterator[Event]:
        if trial.has_diverged:
            self.engine.pause(trial.number)
            yield from self._end(trial.number, "PRUNED", trial.outcome("diverged"))
            return
        verdict = self.rule.verdict(trial.number, self.ledger.standings(), self._total)
        if verdict == "promote":
            self.engine.go_on(trial.number, self.rule.until(epoch))
            return
        self.engine.pause(trial.number)
        if verdict == "prune":
            yield from self._end(trial.number, "PRUNED", trial.outcome("pruned"))
        else:
            yield from self._pause(trial)

    def _take_end(self, trial: Running) -> Iterator[Event]:
        reason = trial.results[-1].reason if trial.results else None
        if reason is None:
            yield from self._end(trial.number, "FAIL", trial.outcome("failed: it ended before its last epoch"))
        elif reason == "diverged":
            yield from self._end(trial.number, "PRUNED", trial.outcome("diverged"))
        else:
            yield from self._end(trial.number, "COMPLETE", trial.outcome(reason))

    def _take_crash(self, trial: Running, crash: str) -> Iterator[Event]:
        crashes = self.ledger.count_crash(trial.number)
        if crashes >= CRASHES_ALLOWED:
            reason = f"failed: {crash}, {crashes} times"
            yield from self._end(trial.number, "FAIL", trial.outcome(reason))
        else:
            yield Notice(f"trial {trial.number}: {crash}; it resumes from its last epoch")
            del self._running[trial.number]

    def _pause(self, trial: Running) -> Iterator[Event]:
        """Release a trial, unless it had finished its last epoch when it was asked to stop."""
        if trial.results and trial.results[-1].reason is not None:
            yield from self._take_end(trial)
            return
        del self._running[trial.number]
        paused = trial.outcome("paused")
        self.ledger.pause(trial.number, paused)
        yield TrialPaused(trial.number, self.ledger.standing(trial.number).epoch, paused.value)
        yield from self.keep_best()

    def _end(self, number: int, state: EndState, ended: Outcome) -> Iterator[Event]:
        self._running.pop(number, None)
        self.ledger.end(number, state, ended)
        yield TrialEnded(number, state, ended.reason, ended.value, ended.epochs, ended.seconds)
        yield from floor_notices(self.ledger, number)
        yield from self.keep_best()
        self.shelf.tidy(self.ledger.models(), self.config.models_kept + 1)

    def keep_best(self) -> Iterator[Event]:
        """Publish the best model and report it, unless it is published already."""
        best = publish_best(self.ledger, self.shelf)
        if best is not None:
            yield NewBest(best.number, math.nan if best.value is None else best.value, str(self.shelf.model))


def _finite(loss: float | None) -> float | None:
    return loss if loss is not None and math.isfinite(loss) else None
