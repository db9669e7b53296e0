"""Reports a study to trackers, from the events of its search, in the process that owns it.

An epoch is reported at most once: a search yields its events after they are stored, and stored epochs are not
reported again. A kill in between leaves the trackers without that epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from automl_pt.config import SearchConfig, Settings
from automl_pt.core.seeds import derive_seed
from automl_pt.runs.directory import history
from automl_pt.runs.tracking import Follower, Trackers
from automl_pt.study.events import EpochDone, Event, Finished, Notice, TrialEnded, TrialStarted
from automl_pt.study.records import StudyResult, TrialRecord
from automl_pt.tracker_events import StudyFinished, TrackedRun, TrialFinished
from automl_pt.training.result import EpochResult


@dataclass
class StudyFollower:
    """Converts the events of one search into tracker events; `records` returns the study's trials."""

    trackers: Trackers
    config: SearchConfig
    name: str
    directory: Path
    records: Callable[[], Sequence[TrialRecord]]
    _runs: dict[int, Follower] = field(default_factory=dict)
    #: epochs that are not in the storage, because their loss is not finite; reported with the trial's end
    _held: dict[int, EpochResult] = field(default_factory=dict)

    def take(self, event: Event) -> None:
        """Pass an event on to the trackers."""
        match event:
            case TrialStarted():
                self._run(event.number, int(event.epochs_done))
            case EpochDone() if not math.isfinite(event.result.val_loss):
                self._held[event.trial] = event.result
            case EpochDone():
                self._run(event.trial, event.result.epoch - 1).epoch(event.result)
            case TrialEnded():
                self._end(event)
            case Finished():
                self.leave("interrupted" if event.result.signal is not None else "paused")
                self.trackers.tell(self._study(event.result))

    def leave(self, reason: str) -> None:
        """Report that the runs still open are abandoned."""
        while self._runs:
            self._runs.pop(min(self._runs)).finish(reason)

    def _run(self, number: int, epochs_done: int) -> Follower:
        """Return a trial's run; report its start if this search has not done so."""
        if number not in self._runs:
            output = self.directory / "trials" / str(number)
            done = [result for result in history(output) if result.epoch <= epochs_done]
            run = TrackedRun(f"{self.name}/trial-{number}", str(output), self.name, str(self.directory), number)
            self._runs[number] = Follower(self.trackers, run, done)
            self._runs[number].start(self._settings(number))
        return self._runs[number]

    def _settings(self, number: int) -> dict[str, Any]:
        shared = self.config.model_dump(mode="json", include=set(Settings.model_fields))
        seed = derive_seed(self.config.seed, "trial", number)
        return {**shared, "backbone": self.config.backbones[0], **self.records()[number].params, "seed": seed}

    def _end(self, event: TrialEnded) -> None:
        follower = self._run(event.number, event.epochs)
        if event.number in self._held:
            follower.epoch(self._held.pop(event.number))
        follower.finish(event.reason)
        del self._runs[event.number]
        ended = (event.state, event.reason, event.value, event.epochs, event.seconds)
        self.trackers.tell(TrialFinished(follower.run, self.records()[event.number].params, *ended))

    def _study(self, result: StudyResult) -> StudyFinished:
        best = result.best
        return StudyFinished(
            study=result.name,
            directory=result.directory,
            best_trial=best.number if best else None,
            params=best.params if best else {},
            value=best.value if best else None,
            model=result.model,
            trials=len(result.trials),
            stopped=result.stopped,
            seconds=result.seconds,
            test=result.test or {},
        )


def follow_study(events: Iterator[Event], follower: StudyFollower | None, notices: list[str]) -> Iterator[Event]:
    """Yield a search's events, each after the trackers received it; their faults are added to `notices`."""
    if follower is None:
        yield from events
        return
    try:
        for event in events:
            follower.take(event)
            while notices:
                yield Notice(notices.pop(0))
            yield event
    finally:
        follower.leave("interrupted")
