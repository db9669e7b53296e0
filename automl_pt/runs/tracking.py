"""Reports events to trackers. Nothing that a tracker does can affect a result.

Trackers are called in one process and one thread: for a single run in the one that trains, for a search in the one that
owns the study. They are called between two epochs, under a time limit, and each of their errors is reported once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from automl_pt.core.errors import UnknownNameError
from automl_pt.plugins.hookspecs import TRACKING
from automl_pt.plugins.isolation import TooSlow, guarded
from automl_pt.plugins.manager import Plugins
from automl_pt.tracker_events import (
    EpochFinished,
    RunFinished,
    RunStarted,
    StudyFinished,
    TrackedRun,
    TrialFinished,
)
from automl_pt.training.result import EpochResult

Told = RunStarted | EpochFinished | RunFinished | TrialFinished | StudyFinished
HOOK_OF: dict[type, str] = dict(
    zip((RunStarted, EpochFinished, RunFinished, TrialFinished, StudyFinished), TRACKING, strict=True)
)
#: time limit of a call in seconds; a tracker that exceeds it is not called again
LIMIT = 30.0
#: the figures of an epoch that trackers receive, in this order; the other metrics come after them
FIGURES = (
    *("train_loss", "val_loss", "val_accuracy", "val_top5", "ema_val_loss", "ema_val_accuracy", "rank_loss"),
    *("lr", "seconds", "images_per_second", "data_wait", "peak_memory"),
)
_log = logging.getLogger("automl_pt")


@dataclass
class Trackers:
    """The trackers of one command; `report` receives one sentence per failing tracker."""

    plugins: Plugins
    names: Sequence[str]
    report: Callable[[str], None] = _log.warning
    limit: float = LIMIT
    _reported: set[str] = field(default_factory=set)
    _left_out: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        known = tracker_names(self.plugins)
        for name in self.names:
            if name not in known:
                remedy = "install its distribution, or name its file with --plugin; `automl-pt plugins` lists hooks"
                raise UnknownNameError("tracker", name, known, remedy=remedy)

    def tell(self, event: Told) -> None:
        """Call the hook of every named tracker that has it, in the given order; no exception of a tracker is raised."""
        hook = HOOK_OF[type(event)]
        found = {item.plugin_name: item for item in getattr(self.plugins.manager.hook, hook).get_hookimpls()}
        for name in dict.fromkeys(self.names):
            if name in found and name not in self._left_out:
                self._call(name, hook, found[name], event)

    def _call(self, name: str, hook: str, implementation: Any, event: Told) -> None:
        """Call one hook; its errors are reported, and its changes of this process are reverted."""
        changed: list[str] = []
        try:
            with guarded(self.limit) as changed:
                implementation.function(*(event for _ in implementation.argnames))
        except TooSlow as error:
            self._left_out.add(name)
            self._say(name, f"{hook}: {error}; it is not called again")
        except (Exception, SystemExit) as error:
            self._say(name, f"{hook} failed with {type(error).__name__}: {error}"[:500])
        if changed:
            self._say(name, f"{hook} changed {' and '.join(changed)}; it was restored")

    def _say(self, name: str, text: str) -> None:
        if name not in self._reported:
            self._reported.add(name)
            self.report(f"tracker {self.plugins.label(name)}: {text}. The result is not affected; reported once")


def tracker_names(plugins: Plugins) -> list[str]:
    """Return the names of the plugins that implement a tracker's hook, in order."""
    hooks = (getattr(plugins.manager.hook, name).get_hookimpls() for name in TRACKING)
    return sorted({implementation.plugin_name for found in hooks for implementation in found})


def figures_of(result: EpochResult) -> dict[str, float]:
    """Return an epoch's figures by name, without those there are none of."""
    recorded = result.to_dict()
    further = sorted(recorded.keys() - {one.name for one in fields(EpochResult)})
    found = ((name, recorded[name]) for name in (*FIGURES, *further))
    return {name: float(value) for name, value in found if value is not None}


@dataclass
class Follower:
    """Reports one run's epochs to trackers; `done` are the epochs that earlier commands reported."""

    trackers: Trackers
    run: TrackedRun
    done: Sequence[EpochResult] = ()
    epochs: int = field(init=False)
    best: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        self.epochs = self.done[-1].epoch if self.done else 0
        self.best = next((figures_of(result) for result in reversed(self.done) if result.is_best), {})

    def start(self, settings: Mapping[str, Any]) -> None:
        """Report that the run starts or resumes."""
        self.trackers.tell(RunStarted(self.run, settings, self.epochs))

    def epoch(self, result: EpochResult) -> None:
        """Report an epoch's results."""
        figures, self.epochs = figures_of(result), result.epoch
        if result.is_best:
            self.best = figures
        self.trackers.tell(EpochFinished(self.run, result.epoch, figures, result.is_best))

    def finish(self, reason: str) -> None:
        """Report that the command has finished with the run."""
        self.trackers.tell(RunFinished(self.run, reason, self.epochs, self.best))


def follow(
    results: Iterator[EpochResult],
    trackers: Trackers | None,
    settings: Mapping[str, Any],
    output: Path,
    done: Sequence[EpochResult],
) -> Iterator[EpochResult]:
    """Yield a single run's epochs, each after the trackers received it; also report the run's start and end.

    `settings` are those of the run, `done` the epochs in its history. A run that had ended before is not reported.
    """
    if trackers is None or not trackers.names or (done and done[-1].reason is not None):
        yield from results
        return
    directory = Path(output).absolute()
    follower = Follower(trackers, TrackedRun(directory.name, str(directory)), done)
    follower.start(settings)
    reason = "interrupted"
    try:
        for result in results:
            reason = result.reason or "interrupted"
            follower.epoch(result)
            yield result
    except Exception as error:
        reason = f"failed: {type(error).__name__}: {error}"
        raise
    finally:
        follower.finish(reason)
