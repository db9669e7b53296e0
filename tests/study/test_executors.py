"""Executors: how one is chosen, and the contract that all of them keep."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from toy_trial import TOY

from automl_pt import hookimpl
from automl_pt.api import search
from automl_pt.config import SearchConfig
from automl_pt.core.errors import ConfigError, InstallationError, PluginError, UnknownNameError
from automl_pt.plugins.executors import ExecutorFactory
from automl_pt.plugins.manager import load_plugins
from automl_pt.study.events import StudyStarted
from automl_pt.study.executor.builtin import ray_address
from automl_pt.study.executor.inline import InlineEngine
from automl_pt.study.executor.ray_cluster import trials_on
from automl_pt.testing import check_executor

ROOT = Path(__file__).parents[2]
EXAMPLE = str(ROOT / "docs" / "reference" / "hooks" / "register_executors.py")


@pytest.mark.parametrize("name", ["inline", "processes"])
def test_the_built_in_executors_keep_the_contract(name: str) -> None:
    check_executor(name)


def trials(tmp_path: Path, **settings: Any) -> tuple[StudyStarted, list[dict[str, Any]]]:
    """Search the toy; return the first event, and the trials without their times."""
    config = SearchConfig(dataset="plain", epochs=9, trials=5, **settings)
    events = list(search.steps(config, tmp_path, objective=TOY))
    started = next(event for event in events if isinstance(event, StudyStarted))
    return started, [{**one.to_dict(), "seconds": 0} for one in events[-1].result.trials]  # type: ignore[attr-defined]


def test_the_executor_of_a_plugin_file_brings_the_same_trials(tmp_path: Path) -> None:
    here = trials(tmp_path / "here", engine="inline")
    there = trials(tmp_path / "there", engine="acme/thread", plugins=(EXAMPLE,))
    assert here[0].workers == 0
    assert there[1] == here[1]


def test_an_unknown_executor_is_refused_with_near_names_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="process.*processes") as caught:
        trials(tmp_path / "study", engine="process")
    assert "--engine takes one of inline, processes" in str(caught.value)
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(("engine", "workers"), [("inline", 2), ("processes", 0)])
def test_engine_and_workers_must_agree(engine: str, workers: int) -> None:
    with pytest.raises(ValueError, match="give one of the two"):
        SearchConfig(dataset="x", engine=engine, workers=workers)


def test_plugins_registered_by_hand_run_in_this_process_alone(tmp_path: Path) -> None:
    class ByHand:
        @hookimpl
        def register_executors(self) -> list[ExecutorFactory]:
            return [ExecutorFactory("mine", lambda job: InlineEngine(job.trial_here))]

    plugins = load_plugins()
    plugins.manager.register(ByHand())
    config = SearchConfig(dataset="plain", epochs=2, trials=2, engine="processes")
    with pytest.raises(ConfigError, match="registers by hand"):
        list(search.steps(config, tmp_path, objective=TOY, plugins=plugins))


class Forgetful(InlineEngine):
    """Does not resume a trial that it paused."""

    def pause(self, number: int) -> None:
        super().pause(number)
        assert self._spec is None
        self._make = lambda spec, should_stop: iter(())


class Eager(InlineEngine):
    """Reports an epoch before its files are there."""

    def wait(self, timeout: float) -> Any:
        spec, messages = self._spec, super().wait(timeout)
        if spec is not None:
            (spec.output / "history.jsonl").unlink(missing_ok=True)
        return messages


@pytest.mark.parametrize(("kind", "rule"), [(Forgetful, "a paused trial"), (Eager, "before the epoch is reported")])
def test_an_executor_that_breaks_the_contract_is_told(kind: type[InlineEngine], rule: str) -> None:
    with pytest.raises(PluginError, match=rule):
        check_executor(ExecutorFactory("broken", lambda job: kind(job.trial_here, job.should_stop)))


def test_adding_an_executor_touches_the_files_that_the_recipe_names() -> None:
    recipe = re.search(r"### Add an executor\n(.*?)\n### ", (ROOT / "CONTRIBUTING.md").read_text(), re.S)
    assert recipe is not None
    assert "`automl_pt/study/executor/builtin.py`" in recipe.group(1)
    assert "`docs/reference/hooks/register_executors.py`" in recipe.group(1)
    # nothing outside their own folder names an executor by its class
    folder = ROOT / "automl_pt" / "study" / "executor"
    users = {
        path
        for path in (ROOT / "automl_pt").rglob("*.py")
        if any(name in path.read_text() for name in ("InlineEngine", "LocalEngine", "RayEngine"))
    }
    assert {path.parent for path in users} == {folder}


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"gpus_per_trial": 0.5}, "belongs to engine 'ray'"),
        ({"ray_address": "127.0.0.1:6379", "engine": "processes"}, "belongs to engine 'ray'"),
        ({"engine": "ray", "device": "cpu"}, "follows from gpus_per_trial"),
        ({"engine": "ray", "gpus_per_trial": 2}, "at most 1, because a trial trains on one GPU, got 2"),
    ],
)
def test_the_settings_of_ray_belong_to_ray(settings: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        SearchConfig(dataset="x", **settings)


@pytest.mark.parametrize(
    ("there", "cpus", "gpus", "trials"),
    [
        *(({"CPU": 8.0}, 1, 0.0, 8), ({"CPU": 8.0}, 3, 0.0, 2), ({"CPU": 8.0}, 1, 1.0, 0), ({}, 1, 0.0, 0)),
        *(({"CPU": 8.0, "GPU": 2.0}, 1, 0.5, 4), ({"CPU": 3.0, "GPU": 2.0}, 1, 0.5, 3)),
        *(({"CPU": 8.0, "GPU": 2.0}, 1, 0.1, 8), ({"CPU": 64.0, "GPU": 1.0}, 1, 1 / 3, 3)),
        # two thirds of a GPU leave a third of each unused
        *(({"CPU": 8.0, "GPU": 3.0}, 1, 2 / 3, 3), ({"CPU": 8.0, "GPU": 4.0}, 4, 1.0, 2)),
    ],
)
def test_a_machine_has_room_for_whole_trials(there: dict[str, float], cpus: int, gpus: float, trials: int) -> None:
    assert trials_on(there, cpus, gpus) == trials


def test_an_executor_whose_package_is_missing_names_it(tmp_path: Path) -> None:
    factory = ExecutorFactory("far", "no_such_package.executor:make")
    with pytest.raises(InstallationError, match="install the package with the module .no_such_package."):
        factory.made(None)


@pytest.mark.parametrize(
    ("asked", "environment", "running", "address"),
    [
        ("a:1", "b:2", "c:3", "a:1"),
        (None, "b:2", "c:3", "b:2"),
        (None, "", "127.0.0.1:3", "127.0.0.1:3"),
        (None, "", "", "auto"),
    ],
)
def test_the_cluster_is_the_one_asked_for_else_the_one_that_runs_here(
    asked: str | None, environment: str, running: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", environment)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    if running:
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text(f"{running}\n")
    assert ray_address(asked) == address
