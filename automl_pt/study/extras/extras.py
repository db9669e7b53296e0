"""The optional results of a search after its trials: refit, ensemble, average, folds, the comparison with before."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from automl_pt.config import EXTRA_SETTINGS, SearchConfig
from automl_pt.core.errors import AutomlError
from automl_pt.core.files import read_json, write_json
from automl_pt.study.events import Event, Finishing, Notice
from automl_pt.study.records import TrialRecord

if TYPE_CHECKING:
    from automl_pt.plugins.manager import Plugins

#: how messages call an extra whose name does not say what it is
CALLED = {"earlier": "comparison with the earlier study"}
#: file in the study's folder with the extras, their trials, and their figures
EXTRAS = "made.json"


@dataclass(frozen=True)
class Ended:
    """A study whose trials have ended: `trials` are those with weights, the best first.

    `best` is the trial or probe whose model is the study's; None: the first of them. `part` is the one to make of what
    is made in parts.
    """

    config: SearchConfig
    directory: Path
    trials: tuple[TrialRecord, ...]
    plugins: Plugins | None
    #: returns whether to save and stop, because of a signal or the time limit
    should_stop: Callable[[], bool]
    best: TrialRecord | None = None
    part: int | None = None

    @property
    def winner(self) -> TrialRecord:
        """Return the trial or probe whose model is the study's."""
        return self.trials[0] if self.best is None else self.best

    def output(self, number: int) -> Path:
        """Return a trial's run directory."""
        return self.directory / "trials" / str(number)


#: extras that are made of the best model, which may be a probe
OF_BEST = ("earlier", "folds")
#: makes one extra, yielding notes; returns its figures, or None if it was stopped or could not be made
MakeExtra = Callable[[Ended], Generator[str, None, dict[str, Any] | None]]


def after_search(
    ended: Ended, makers: Mapping[str, MakeExtra], finishing: Callable[[str], Event] = Finishing
) -> Generator[Event, None, dict[str, dict[str, Any]]]:
    """Make the requested extras that do not exist yet for these trials; return the figures of each by name.

    Any error (our own, exhausted memory, a plugin's network) is reported and costs only that extra, because the
    search's model exists and its report is still to be written.
    """
    path = ended.directory / EXTRAS
    made = _earlier_extras(path)
    for name in ended.config.extras:
        of = _source(ended, name)
        if not of:
            continue
        if _is_made(made.get(name), of):
            continue
        made.pop(name, None)
        yield finishing(f"making the {CALLED.get(name, name)}")
        try:
            figures = None if ended.should_stop() else (yield from _noted(makers[name](ended)))
        except AutomlError as error:
            yield Notice(f"{name}: {error.in_a_line()}")
        except (Exception, SystemExit) as error:
            yield Notice(f"{name}: failed with {type(error).__name__}: {error}; the search's model is unaffected")
        else:
            if figures is None:
                yield Notice(f"{CALLED.get(name, name)}: not finished; the same command resumes it")
            else:
                made[name] = {"of": of, **figures}
        write_json(path, made)  # also drops extras of other trials
    return {name: made[name] for name in ended.config.extras if name in made}


def _noted(making: Generator[str, None, dict[str, Any] | None]) -> Generator[Event, None, dict[str, Any] | None]:
    """Yield notes as events; return the result."""
    while True:
        try:
            yield Notice(next(making))
        except StopIteration as end:
            return cast("dict[str, Any] | None", end.value)


def _earlier_extras(path: Path) -> dict[str, Any]:
    """Return the extras of an earlier search; empty if there are none, or the file is damaged."""
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_made(found: Any, of: list[list[Any]]) -> bool:
    """Return whether an extra was made of these trials without a part that failed, and still exists."""
    if not isinstance(found, dict) or found.get("of") != of or "model" not in found or found.get("failed"):
        return False
    return found["model"] is None or Path(found["model"], "model.json").exists()


def _source(ended: Ended, name: str) -> list[list[Any]]:
    """Return what an extra is made of: trials with their epochs, and what else would make it another one."""
    if name in OF_BEST:
        return [[ended.winner.number, ended.winner.epochs, getattr(ended.config, EXTRA_SETTINGS[name])]]
    count = 1 if name == "refit" else int(getattr(ended.config, name))
    return [[trial.number, trial.epochs] for trial in ended.trials[:count]]
