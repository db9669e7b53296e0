"""Checks the contract of a tracker with the events of an invented study and two single runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import chdir
from pathlib import Path

from automl_pt.plugins.manager import Plugins, load_plugins
from automl_pt.runs.tracking import Told, Trackers
from automl_pt.testing.contract import expect, no_network
from automl_pt.tracker_events import EpochFinished, RunFinished, RunStarted, StudyFinished, TrackedRun, TrialFinished

SETTINGS = {"dataset": "made-up", "backbone": "acme/tiny", "lr": 0.1, "batch_size": 8, "weights": None, "plugins": []}


def check_tracker(name: str, folder: Path, *, plugins: Plugins | None = None) -> list[Told]:
    """Send the tracker called `name` the events of an invented history in `folder`; return the events.

    The name is looked up as for `--tracker`. The history has a run that is interrupted and resumed, a run whose
    loss is not a number, a trial that was pruned before its first epoch, and a name that is not ASCII; no network is
    needed. Raises PluginError for a hook that raises, exceeds its time limit, or changes the process;
    UnknownNameError if no plugin of that name implements a tracker's hook.
    """
    said: list[str] = []
    trackers = Trackers(plugins or load_plugins(), [name], report=said.append)
    told: list[Told] = []
    with chdir(folder), no_network():
        for event in story(Path(folder).absolute()):
            if isinstance(event, RunStarted):  # as in a real run, the folder exists before its run starts
                Path(event.run.directory).mkdir(parents=True, exist_ok=True)
            trackers.tell(event)
            told.append(event)
            expect(
                not said,
                "a tracker accepts every event, within its time limit, and changes nothing else",
                came=f"{'; '.join(said)} (told {event!r})"[:2000],
                look="the hook of that name; see `automl_pt/tracker_events.py` for what the values mean",
            )
    return told


def story(folder: Path) -> Iterator[Told]:
    """Yield the events of a single run in two parts, of one that diverged, and of a study of two trials."""
    first, second = (TrackedRun(name, str(folder / name)) for name in ("first", "zweiter Lauf \N{SNOWMAN}"))
    yield from _run(first, range(1, 3), "interrupted")
    yield from _run(first, range(3, 5), "completed")
    yield RunStarted(second, SETTINGS)
    yield EpochFinished(second, 1, {"train_loss": math.nan, "val_loss": math.nan, "val_accuracy": 0.1})
    yield RunFinished(second, "diverged", 1)
    study = folder / "study"
    trials = [TrackedRun(f"s/trial-{n}", str(study / "trials" / str(n)), "s", str(study), n) for n in (0, 1)]
    params = {"lr": 0.1, "batch_size": 8}
    yield RunStarted(trials[1], {**SETTINGS, **params})
    yield from _run(trials[0], range(1, 4), "completed")
    yield TrialFinished(trials[0], params, "COMPLETE", "completed", 0.25, 3, 1.5)
    yield RunFinished(trials[1], "pruned", 0)
    yield TrialFinished(trials[1], params, "PRUNED", "pruned", None, 0, 0.1)
    yield StudyFinished("s", str(study), 0, params, 0.25, str(study / "model"), 2, "trials", 2.5, {"accuracy": 0.9})


def _run(run: TrackedRun, epochs: range, reason: str) -> Iterator[Told]:
    yield RunStarted(run, SETTINGS, epochs.start - 1)
    figures: Mapping[str, float] = {}
    for epoch in epochs:
        figures = {"train_loss": 1.0 / epoch, "val_loss": 1.5 / epoch, "val_accuracy": epoch / 10, "lr": 0.1}
        yield EpochFinished(run, epoch, figures, is_best=True)
    yield RunFinished(run, reason, epochs.stop - 1, figures)
