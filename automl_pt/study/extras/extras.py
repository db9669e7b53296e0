"""What a search may make of its trials once they have ended, beside the best one's model."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from automl_pt.config import SearchConfig
from automl_pt.core.errors import AutomlError
from automl_pt.core.files import read_json, write_json
from automl_pt.study.events import Event, Notice
from automl_pt.study.records import TrialRecord

if TYPE_CHECKING:
    from automl_pt.plugins.manager import Plugins

#: in the study's folder: what was made, of which trials, and its figures
EXTRAS = "made.json"


@dataclass(frozen=True)
class Ended:
    """A study whose trials have ended: `trials` are those whose weights are there, the best first."""

    config: SearchConfig
    directory: Path
    trials: tuple[TrialRecord, ...]
    plugins: Plugins | None
    #: says whether to save and stop, because of a signal or because the time is over
    should_stop: Callable[[], bool]

    def output(self, number: int) -> Path:
        """Return a trial's run directory."""
        return self.directory / "trials" / str(number)


#: makes one thing, telling how it goes on; returns its figures, or None where it was stopped or could not be made
MakeExtra = Callable[[Ended], Generator[str, None, dict[str, Any] | None]]


def asked(config: SearchConfig) -> list[str]:
    """Return what is to be made, in the order in which it is: what takes longest comes last."""
    return [name for name in ("ensemble", "average", "refit") if getattr(config, name)]


def images_to_learn(config: SearchConfig, train: int, val: int) -> int:
    """Count the images that will be learned from, or looked at, once the trials have ended; a refit runs to its end."""
    refit = config.epochs * (train + val) if config.refit else 0
    return refit + (config.average or 0) * (train + val) + 3 * (config.ensemble or 0) * val


def after_search(ended: Ended, makers: Mapping[str, MakeExtra]) -> Generator[Event, None, dict[str, dict[str, Any]]]:
    """Make what is asked for and not made yet of the same trials; return the figures of each by name.

    Any error (ours, memory that is not there, a plugin's network) is told and costs that one thing: the search is over,
    its model stands, and its report is still to be written.
    """
    path = ended.directory / EXTRAS
    made = _earlier_extras(path)
    for name in asked(ended.config):
        of = [[trial.number, trial.epochs] for trial in ended.trials[: _count(ended.config, name)]]
        if _is_made(made.get(name), of):
            continue
        made.pop(name, None)
        try:
            figures = None if ended.should_stop() else (yield from _noted(makers[name](ended)))
        except AutomlError as error:
            yield Notice(f"{name}: {error.in_a_line()}")
        except (Exception, SystemExit) as error:
            yield Notice(f"{name}: failed with {type(error).__name__}: {error}; the model found stands")
        else:
            if figures is None:
                yield Notice(f"{name}: not finished; the same command goes on with it")
            else:
                made[name] = {"of": of, **figures}
        write_json(path, made)  # without what was made of other trials, too
    return {name: made[name] for name in asked(ended.config) if name in made}


def _noted(making: Generator[str, None, dict[str, Any] | None]) -> Generator[Event, None, dict[str, Any] | None]:
    """Yield what is told as events; return what is returned."""
    while True:
        try:
            yield Notice(next(making))
        except StopIteration as end:
            return cast("dict[str, Any] | None", end.value)


def _earlier_extras(path: Path) -> dict[str, Any]:
    """Return what an earlier search made; nothing where that is not told, or damaged: then it is made again."""
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_made(found: Any, of: list[list[int]]) -> bool:
    """Say whether a thing was made of these trials, and is still there."""
    if not isinstance(found, dict) or found.get("of") != of or "model" not in found:
        return False
    return found["model"] is None or Path(found["model"], "model.json").exists()


def _count(config: SearchConfig, name: str) -> int:
    return 1 if name == "refit" else int(getattr(config, name))
