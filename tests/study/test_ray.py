"""Trials on a Ray cluster of three machines on the loopback; `.ci/run` runs these alone, before the other tests."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray_on_loopback
from toy_trial import TOY

from automl_pt.api import search
from automl_pt.config import SearchConfig
from automl_pt.core.errors import DeviceError
from automl_pt.core.files import write_json
from automl_pt.plugins.executors import ExecutorFactory
from automl_pt.plugins.manager import load_plugins
from automl_pt.study import setup as opening
from automl_pt.study.events import EpochDone, Notice
from automl_pt.study.executor import sample_trial
from automl_pt.study.executor.base import ExecutorJob, TrialSpec
from automl_pt.study.executor.messages import EpochEnded, Message, TrialPlaced
from automl_pt.testing import check_executor

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def machines() -> Iterator[tuple[Any, list[Any]]]:
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), before])
    with ray_on_loopback.cluster(3) as found:
        yield found
    os.environ["PYTHONPATH"] = before


def settings(machines: tuple[Any, list[Any]], **more: Any) -> SearchConfig:
    given = {"dataset": "plain", "engine": "ray", "ray_address": machines[0].address, **more}
    return SearchConfig(**given)


def lose(machines: tuple[Any, list[Any]], engine: Any) -> None:
    """Kill the machine of the trial that runs, with all that runs on it."""
    place = next(iter(engine._busy.values())).place
    node = next(one for one in machines[1] if one.node_id.startswith(place.name.rpartition("/")[2]))
    ray_on_loopback.kill(node)
    machines[1].remove(node)


def test_ray_keeps_the_contract(machines: tuple[Any, list[Any]]) -> None:
    config = settings(machines)
    check_executor(
        load_plugins().named(ExecutorFactory, "ray"), lose=lambda engine: lose(machines, engine), config=config
    )
    machines[1].append(ray_on_loopback.add(machines[0]))


def test_a_search_loses_a_machine_and_no_epoch(
    machines: tuple[Any, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = {"epochs": 9, "trials": 10}
    here = list(search.steps(SearchConfig(dataset="plain", workers=0, **shared), tmp_path / "here", objective=TOY))
    config = settings(machines, workers=1, **shared)
    made: list[Any] = []
    make = opening.make_engine
    monkeypatch.setattr(opening, "make_engine", lambda *given: made.append(make(*given)) or made[0])
    monkeypatch.setenv("TOY_SECONDS", "0.1")
    events, lost = [], False
    for event in search.steps(config, tmp_path / "there", objective=TOY):
        events.append(event)
        runs = isinstance(event, EpochDone) and event.result.epoch >= 2 and made[0]._busy[event.trial].pending
        if runs and not lost:
            lose(machines, made[0])
            lost = True
    machines[1].append(ray_on_loopback.add(machines[0]))
    trials, same = (
        [{**one.to_dict(), "seconds": 0, "machine": None} for one in found[-1].result.trials]
        for found in (events, here)
    )
    assert trials == same
    done = [(event.trial, event.result.epoch) for event in events if isinstance(event, EpochDone)]
    assert len(done) == len(set(done))
    said = [event.text for event in events if isinstance(event, Notice)]
    assert sum("its machine was lost" in text for text in said) == 1, said
    assert not any("process ended" in text for text in said)
    assert all("cpu on " in one.machine for one in events[-1].result.trials)


def test_a_trial_that_finds_no_room_says_so_and_runs_when_a_machine_joins(
    machines: tuple[Any, list[Any]], tmp_path: Path
) -> None:
    write_json(tmp_path / "manifest.json", {"salt": "x"})
    config = settings(machines, cpus_per_trial=2)
    job = ExecutorJob(config, "automl_pt.study.executor.sample_trial:make", sample_trial.make, tmp_path)
    engine = load_plugins().named(ExecutorFactory, "ray").made(job)
    assert engine.slots == 1  # a trial waits, rather than that the search ends
    trial = config.trial(backbone="resnet18", lr=0.1, batch_size=8, seed=1)
    engine.start(TrialSpec(0, trial, tmp_path / "0", 1, tmp_path / "manifest.json"))
    said: list[str] = []
    while not said:
        assert engine.wait(1.0) == []
        said += engine.notices()
    assert said[0].startswith("waiting for a place: a trial asks for 2 CPU; the cluster has")
    added = ray_on_loopback.add(machines[0], num_cpus=2)
    messages = list[Message]()
    while not any(isinstance(message, EpochEnded) for message in messages):
        messages += engine.wait(1.0)
    assert isinstance(messages[0], TrialPlaced)
    engine.close(5)
    machines[0].remove_node(added)


def test_shares_of_gpus_are_placed_as_they_are_counted(machines: tuple[Any, list[Any]], tmp_path: Path) -> None:
    class Here:
        def gpu(self) -> str:
            return os.environ["CUDA_VISIBLE_DEVICES"]

    def engine(**more: Any) -> Any:
        config = settings(machines, **more)
        job = ExecutorJob(config, "automl_pt.study.executor.sample_trial:make", sample_trial.make, tmp_path)
        return load_plugins().named(ExecutorFactory, "ray").made(job)

    added = ray_on_loopback.add(machines[0], num_cpus=5, num_gpus=2)  # GPUs in name alone
    halves = engine(gpus_per_trial=0.5)
    assert halves.slots == 4
    places = [ray_on_loopback.ray.remote(**halves._asks)(Here).remote() for _ in range(5)]
    asked = [place.gpu.remote() for place in places]
    done, waiting = ray_on_loopback.ray.wait(asked, num_returns=4, timeout=60)
    assert Counter(ray_on_loopback.ray.get(done)) == {"0": 2, "1": 2}
    assert len(waiting) == 1
    assert ray_on_loopback.ray.wait(waiting, timeout=1)[0] == []
    assert halves.shortage().startswith(
        "a trial asks for 1 CPU and 0.5 GPU; the cluster has 5 machines with 8 CPU (4 free)"
    )
    assert halves.shortage().endswith("2 GPU (0 free); this search asks for 0 places")
    halves.close()
    for more, slots in (({"gpus_per_trial": 0.3}, 5), ({"gpus_per_trial": 1}, 2), ({"cpus_per_trial": 3}, 1)):
        shared = engine(**more)
        assert shared.slots == slots
        shared.close()
    large = engine(gpus_per_trial=1, cpus_per_trial=6)
    assert large.slots == 1  # one waits
    assert large.shortage().count(", and none of them has as much: add one, or ask for less") == 1
    large.close()
    machines[0].remove_node(added)


def test_the_start_is_quick_where_no_cluster_answers(tmp_path: Path) -> None:
    config = SearchConfig(dataset="plain", engine="ray", ray_address=f"127.0.0.1:{ray_on_loopback.port()}")
    job = ExecutorJob(config, "toy_trial:make", sample_trial.make, tmp_path)
    with pytest.raises(DeviceError, match="no Ray cluster answers"):
        load_plugins().named(ExecutorFactory, "ray").made(job)
