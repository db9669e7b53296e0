"""The steps of a search after its trials. They run where trials run, because a plugin's network may kill its process.

Each step has a plain form, which a worker process runs from the objective's name and plain values; an executor in this
process runs the same with the objective itself. A step that fails costs the search only that step.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_pt.config import SearchConfig
from automl_pt.core.errors import AutomlError
from automl_pt.study.executor.base import Answer, Call, Caller, Engine
from automl_pt.study.extras.extras import Ended, MakeExtra
from automl_pt.study.records import ModelComparison, TrialRecord

if TYPE_CHECKING:
    from automl_pt.plugins.manager import Plugins
    from automl_pt.study.objective import Objective

#: seconds in which a step may save and return once it is to stop
GRACE = 5.0


@dataclass(frozen=True)
class Steps:
    """The steps after the trials of the study in `directory`; each is an `Answer`, until `unwanted`."""

    objective: Objective
    config: SearchConfig
    directory: Path
    plugins: Plugins | None
    engine: Engine
    unwanted: Callable[[], bool]

    def compare(self, best: TrialRecord, runner_up: TrialRecord) -> Generator[str, None, ModelComparison | None]:
        """Measure whether the best trial's lead over the runner-up exceeds the noise."""
        what = f"the comparison of trials {best.number} and {runner_up.number}"
        found = yield from self._call("compare", what, best=best.to_dict(), runner_up=runner_up.to_dict())
        return None if found is None else ModelComparison.from_dict(found)

    def test(self, model: Path) -> Generator[str, None, dict[str, float] | None]:
        """Evaluate the finished model on the test split."""
        found: dict[str, float] | None = yield from self._call("test", "the test of the model", model=str(model))
        return found

    def report(self) -> Generator[str, None, Path | None]:
        """Write the page; None if it is no longer wanted."""
        found = yield from self._call("report", "the report")
        return None if found is None else Path(found)

    def makers(self) -> Mapping[str, MakeExtra]:
        """Return the functions that make the requested extras."""

        def maker(name: str) -> MakeExtra:
            return self._in_parts if name == "folds" else partial(self._make, name)

        return {name: maker(name) for name in self.config.extras}

    def _make(self, name: str, ended: Ended, part: int | None = None) -> Answer:
        trials, best = [trial.to_dict() for trial in ended.trials], ended.winner.to_dict()
        what = f"the making of the {name}" + ("" if part is None else f", part {part}")
        return self._call("make", what, ended.should_stop, GRACE, name=name, trials=trials, best=best, part=part)

    def _in_parts(self, ended: Ended) -> Answer:
        """Make each fold by a call of its own, so that one whose process dies costs no other; then join them."""
        from automl_pt.study.extras.folds import failed

        for part in range(1, (self.config.folds or 0) + 1):
            try:
                found = yield from self._make("folds", ended, part)
            except AutomlError as error:
                failed(ended, part, error)
                yield f"fold {part} of {self.config.folds} failed, the others do not: {error.in_a_line()}"
                continue
            if found is None:
                return None
            shown = f"{100 * found['accuracy']:.1f} % of {found['images']} held-out images"
            yield f"fold {part} of {self.config.folds}: accuracy {shown}"
        return (yield from self._make("folds", ended))

    def _call(
        self, step: str, what: str, unwanted: Callable[[], bool] | None = None, grace: float = 0.0, **arguments: Any
    ) -> Answer:
        given = {"directory": str(self.directory), **arguments}
        plain = {"objective": self.objective.name, "step": step, "config": self.config.model_dump(mode="json")}

        def here(caller: Caller) -> Any:
            return _STEPS[step](self.objective, self.config, self.plugins, caller, **given)

        shown = f"{what} (backbone {', '.join(self.config.backbones)})"
        call = Call(f"{__name__}:run", {**plain, "arguments": given}, here, shown, grace, self.directory)
        return (yield from self.engine.call(call, unwanted or self.unwanted))


def run(
    objective: str,
    step: str,
    config: dict[str, Any],
    arguments: dict[str, Any],
    device: str,
    threads: int,
    caller: Caller,
) -> Any:
    """Run one step in a worker process, from plain values."""
    import torch

    from automl_pt.study.executor.trial_run import loaded_plugins
    from automl_pt.study.executor.worker import load

    torch.set_num_threads(threads)
    # this process has its device already, whatever executor gave it
    chosen = dict.fromkeys(("engine", "ray_address", "gpus_per_trial", "cpus_per_trial", "trials_per_gpu"))
    settings = SearchConfig(**{**config, **chosen, "device": device, "threads": threads})
    return _STEPS[step](load(objective), settings, loaded_plugins(settings.plugins), caller, **arguments)


def _compare(
    objective: Objective,
    config: SearchConfig,
    plugins: Plugins | None,
    caller: Caller,
    *,
    directory: str,
    best: dict[str, Any],
    runner_up: dict[str, Any],
) -> dict[str, Any] | None:
    pair = TrialRecord.from_dict(best), TrialRecord.from_dict(runner_up)
    found = objective.compare(config, *pair, Path(directory), plugins, caller)
    return None if found is None else asdict(found)


def _test(
    objective: Objective,
    config: SearchConfig,
    plugins: Plugins | None,
    caller: Caller,
    *,
    directory: str,
    model: str,
) -> dict[str, float] | None:
    return objective.test(config, Path(model), Path(directory) / "manifest.json", plugins, caller)


def _report(
    objective: Objective, config: SearchConfig, plugins: Plugins | None, caller: Caller, *, directory: str
) -> str | None:
    return None if objective.report is None else str(objective.report(config, Path(directory), plugins, caller))


def _make(
    objective: Objective,
    config: SearchConfig,
    plugins: Plugins | None,
    caller: Caller,
    *,
    directory: str,
    name: str,
    trials: list[dict[str, Any]],
    best: dict[str, Any],
    part: int | None,
) -> Answer:
    assert objective.makers is not None
    records = tuple(TrialRecord.from_dict(trial) for trial in trials)
    winner = TrialRecord.from_dict(best)
    return objective.makers()[name](Ended(config, Path(directory), records, plugins, caller.should_stop, winner, part))


_STEPS: Mapping[str, Callable[..., Any]] = {"compare": _compare, "test": _test, "report": _report, "make": _make}
