from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from toy_trial import TOY

from automl_pt import Pruner, PruningRule, Sampler, hookimpl
from automl_pt.api.search import steps
from automl_pt.config import SearchConfig, make
from automl_pt.core.errors import PluginError, UnknownNameError
from automl_pt.plugins.manager import Plugins, load_plugins
from automl_pt.plugins.provenance import used_plugins
from automl_pt.study import events
from automl_pt.study.records import StudyResult
from automl_pt.testing import check_pruner, check_sampler

HOOKS = Path(__file__).parents[2] / "docs" / "reference" / "hooks"
FILES = [str(HOOKS / f"register_{kind}.py") for kind in ("samplers", "pruners")]


def search(directory: Path, plugins: Plugins | None = None, **given: Any) -> StudyResult:
    settings = {"dataset": "plain", "epochs": 3, "trials": 6, "workers": 0, "batch_sizes": (8, 16, 32), **given}
    told = list(steps(make(SearchConfig, settings), directory, objective=TOY, plugins=plugins))
    assert isinstance(told[-1], events.Finished)
    return told[-1].result


def with_plugin(plugin: object) -> Plugins:
    plugins = load_plugins()
    plugins.manager.register(plugin, "mine")
    return plugins


class Mine:
    """A plugin that registers one sampler and one pruner, made of functions."""

    def __init__(self, suggest: Any = None, verdict: Any = None) -> None:
        self.suggest, self.verdict = suggest, verdict

    @hookimpl
    def register_samplers(self) -> list[Sampler]:
        return [Sampler("mine/sampler", self.suggest)]

    @hookimpl
    def register_pruners(self) -> list[Pruner]:
        rule = type("Rule", (PruningRule,), {} if self.verdict is None else {"verdict": self.verdict})
        return [Pruner("mine/pruner", lambda epochs, images: rule(epochs))]


def asks_python(space: Any, params: Any, ranking: Any, *, seed: int, number: int) -> Any:
    return space.at([random.random() for _ in range(space.axes)])


def asks_the_system(space: Any, params: Any, ranking: Any, *, seed: int, number: int) -> Any:
    return space.at([random.SystemRandom().random() for _ in range(space.axes)])


def outside(space: Any, params: Any, ranking: Any, *, seed: int, number: int) -> Any:
    return {**space.default(), "lr": 7.0}


def another_size(space: Any, params: Any, ranking: Any, *, seed: int, number: int) -> Any:
    return {**space.default(), "batch_size": 17}


def too_little(space: Any, params: Any, ranking: Any, *, seed: int, number: int) -> Any:
    return {"lr": 0.1}


def nothing(space: Any, params: Any, ranking: Any, *, seed: int, number: int) -> Any:
    return None


def fails(space: Any, params: Any, ranking: Any, *, seed: int, number: int) -> Any:
    raise SystemExit("no licence")


def forgets(space: Any, params: Any, ranking: Any, *, seed: int, number: int) -> Any:
    params.clear()
    return space.default()


@pytest.mark.parametrize("name", ["tpe", "halton", "random"])
def test_built_in_samplers_keep_the_contract(name: str) -> None:
    points = check_sampler(name)
    assert len({point["lr"] for point in points}) > 20


@pytest.mark.parametrize("name", ["rungs", "hyperband", "median", "none", "percentile", "successive-halving"])
def test_built_in_pruners_keep_the_contract(name: str) -> None:
    ends = check_pruner(name)
    assert {end for ended in ends.values() for end in ended} <= {"finished", "pruned", "lost"}


@pytest.mark.parametrize(
    ("suggest", "fault"),
    [
        (asks_python, "Python's random state"),
        (asks_the_system, "then {"),
        (outside, "lr 7.0, which is not from 0.0001 to 1"),
        (another_size, "batch_size 17, which is not one of 8, 16"),
        (too_little, "the settings ['lr'], which have to be"),
        (nothing, "None, which is no mapping"),
        (fails, "SystemExit: no licence"),
        (forgets, "trial 1"),
    ],
)
def test_the_contract_finds_what_is_wrong_with_a_sampler(suggest: Any, fault: str) -> None:
    with pytest.raises(PluginError) as caught:
        check_sampler(Sampler("mine/sampler", suggest))
    assert fault in caught.value.given


@pytest.mark.parametrize(
    ("verdict", "fault"),
    [
        (lambda self, number, progress_list, total: "perhaps", "verdict returned 'perhaps'"),
        (lambda self, number, progress_list, total: "wait", "waiting"),
        (lambda self, number, progress_list, total: "prune", "['pruned', 'pruned'"),
        (lambda self, number, progress_list, total: progress_list[99], "IndexError"),
    ],
)
def test_the_contract_finds_what_is_wrong_with_a_pruner(verdict: Any, fault: str) -> None:
    with pytest.raises(PluginError) as caught:
        check_pruner("mine/pruner", plugins=with_plugin(Mine(verdict=verdict)))
    assert fault in caught.value.given


def test_a_plugins_sampler_and_pruner_search_a_study(tmp_path: Path) -> None:
    options: dict[str, Any] = {"plugins": load_plugins(FILES), "sampler": "acme/grid", "pruner": "acme/twice"}
    result = search(tmp_path / "toy", **options)
    sizes = [trial.params["batch_size"] for trial in result.trials]
    assert sizes == [16, 8, 8, 16, 16, 16]  # trial 0 is the documented default
    assert {trial.state for trial in result.trials} <= {"COMPLETE", "PRUNED"}
    assert [trial.params for trial in search(tmp_path / "again", **options).trials] == [
        trial.params for trial in result.trials
    ]


def test_a_study_resumes_with_another_sampler(tmp_path: Path) -> None:
    first = search(tmp_path / "toy", sampler="halton", pruner="none", trials=3)
    again = search(tmp_path / "toy", sampler="random", pruner="none", trials=5)
    assert [trial.params for trial in again.trials[:3]] == [trial.params for trial in first.trials]
    assert len(again.trials) == 5


@pytest.mark.parametrize(
    ("suggest", "rule", "given"),
    [
        (outside, "the sampler mine/sampler chose no point of the search space", "lr 7.0, which is not from"),
        (fails, "the sampler mine/sampler failed", "SystemExit(no licence), which ends the whole program"),
    ],
)
def test_a_plugins_fault_names_it_and_the_study_goes_on_without(
    tmp_path: Path, suggest: Any, rule: str, given: str
) -> None:
    with pytest.raises(PluginError) as caught:
        search(tmp_path / "toy", with_plugin(Mine(suggest)), sampler="mine/sampler")
    assert caught.value.rule == rule
    assert "mine (registered by hand)" in caught.value.given
    assert given in caught.value.given
    assert len(search(tmp_path / "toy").trials) == 6


def test_a_sampler_changes_no_state_of_the_process(tmp_path: Path) -> None:
    plugins, before = with_plugin(Mine(asks_python)), random.getstate()
    search(tmp_path / "toy", plugins, sampler="mine/sampler", trials=2)
    assert random.getstate() == before
    assert any("Python's random state when its sampler mine/sampler was called" in note for note in plugins.notes)


@pytest.mark.parametrize(
    ("setting", "name", "near"),
    [("sampler", "tpp", "'tpe'"), ("pruner", "rung", "'rungs'"), ("pruner", "x", "hyperband")],
)
def test_an_unknown_name_is_told_with_near_ones_and_leaves_nothing(
    tmp_path: Path, setting: str, name: str, near: str
) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown {setting}") as caught:
        search(tmp_path / "toy", **{setting: name})
    assert near in str(caught.value)
    assert not (tmp_path / "toy").exists()


def test_a_study_keeps_which_plugins_chose_its_trials() -> None:
    plugins = load_plugins(FILES)
    named = [("sampler", "acme/grid"), ("pruner", "acme/twice")]
    assert [found["name"] for found in used_plugins(plugins, named)] == [
        "register_pruners",
        "register_samplers",
    ]
    assert used_plugins(plugins, [("sampler", "tpe"), ("pruner", "rungs")]) == []
