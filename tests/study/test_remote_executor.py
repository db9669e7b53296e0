"""Places with disks of their own: what is lost with them, and what must not be."""

from __future__ import annotations

import json
import math
import shutil
from concurrent.futures import Future
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from thread_cluster import ThreadCluster
from toy_trial import TOY

from automl_pt.api import search
from automl_pt.config import SearchConfig, TrainConfig
from automl_pt.core.errors import AutomlError, ConfigError, DatasetError, InstallationError
from automl_pt.core.json_reader import parse_json
from automl_pt.data.prepare import prepare
from automl_pt.plugins.executors import ExecutorFactory
from automl_pt.plugins.manager import load_plugins
from automl_pt.study import setup as opening
from automl_pt.study.concluding import run as run_step
from automl_pt.study.events import EpochDone, Notice
from automl_pt.study.executor.base import NO_CALLER, Call, ExecutorJob, TrialSpec
from automl_pt.study.executor.messages import (
    EpochEnded,
    IteratorEnded,
    Message,
    PassAdvanced,
    PassProgress,
    Place,
    ProxyRun,
    ProxyRunEnded,
    StudyFailed,
    TrialCrashed,
    TrialFailed,
    TrialLostPlace,
    TrialPlaced,
    TrialStopped,
    TrialWaits,
    message_as_plain,
    message_from_plain,
)
from automl_pt.study.executor.run_files import FolderCopy, write_files
from automl_pt.study.executor.sample_trial import make
from automl_pt.study.executor.versions import differences, versions_here
from automl_pt.testing import check_executor
from automl_pt.training.result import EpochResult

CLUSTER = ExecutorFactory("threads", ThreadCluster)


def test_threads_with_disks_of_their_own_keep_the_contract() -> None:
    check_executor(CLUSTER, lose=lambda engine: engine.lose_a_busy_one())  # type: ignore[attr-defined]


def run(
    directory: Path, monkeypatch: pytest.MonkeyPatch, **cluster: Any
) -> tuple[list[Any], Any, ThreadCluster | None]:
    """Search the toy, on threads that may be lost where `cluster` says so; return events, result and executor."""
    config = SearchConfig(dataset="plain", epochs=9, trials=10, workers=0)
    made: list[ThreadCluster] = []

    def engine(job: ExecutorJob, plugins: Any) -> ThreadCluster:
        made.append(ThreadCluster(ExecutorJob(job.config, "toy_trial:make", make, job.directory), **cluster))
        return made[0]

    with monkeypatch.context() as patch:
        if cluster:
            patch.setattr(opening, "make_engine", engine)
        events = list(search.steps(config, directory, objective=TOY))
    return events, events[-1].result, made[0] if made else None


def figures(result: Any) -> list[dict[str, Any]]:
    return [{**one.to_dict(), "seconds": 0, "machine": None} for one in result.trials]


@pytest.mark.parametrize(
    ("seed", "machines", "rate"),
    [(1, 1, 0.15), (2, 3, 0.2), *(pytest.param(seed, 3, 0.2, marks=pytest.mark.slow) for seed in range(3, 9))],
)
def test_machines_that_fall_lose_and_double_nothing(
    seed: int, machines: int, rate: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events, there, engine = run(tmp_path / "there", monkeypatch, machines=machines, rate=rate, seed=seed)
    assert engine is not None
    assert engine.falls > 3  # more than the crashes that a trial is allowed
    assert len(there.trials) == 10
    assert not any(one.state in ("RUNNING", "FAIL") for one in there.trials)
    done = [(event.trial, event.result.epoch) for event in events if isinstance(event, EpochDone)]
    assert len(done) == len(set(done))
    lost = [event for event in events if isinstance(event, Notice) and "was lost" in event.text]
    assert lost
    assert all(one.machine and one.machine.startswith("thread on machine-") for one in there.trials)
    if machines == 1:  # one trial at a time: the trials are those of a search without falls
        _, here, _ = run(tmp_path / "here", monkeypatch)
        assert figures(there) == figures(here)


@pytest.mark.parametrize(
    ("there", "changing", "noted"),
    [
        ({}, [], []),
        ({"torch": "1.0"}, ["torch 1.0, here 2.11.0+cpu"], []),
        ({"torch": "2.11.0+cu128"}, [], ["torch 2.11.0+cu128, here 2.11.0+cpu"]),
        ({"numpy": "1.0", "Python": "3.9"}, [], ["numpy 1.0, here 2.3", "Python 3.9, here 3.13"]),
        ({"acme": "2", "timm": "not installed"}, ["timm not installed, here 1.0", "acme 2, here not installed"], []),
    ],
)
def test_other_versions_are_named_each_with_both(there: dict[str, str], changing: list[str], noted: list[str]) -> None:
    here = {"torch": "2.11.0+cpu", "numpy": "2.3", "Python": "3.13", "timm": "1.0"}
    assert differences(here, {**here, **there}) == (changing, noted)


def test_versions_are_read_without_an_import() -> None:
    assert {"Python", "automl-pt", "torch", "no-such-plugin"} <= set(found := versions_here(["no-such-plugin"]))
    assert found["no-such-plugin"] == "not installed"


def other_versions(monkeypatch: pytest.MonkeyPatch, is_other: Any, **versions: str) -> None:
    """Give the machines that `is_other` names other versions than the coordinator has."""
    opened = ThreadCluster.open_place

    def open_place(self: ThreadCluster, avoid: frozenset[str]) -> Any:
        handle = opened(self, avoid)
        if is_other(self, handle.machine):
            handle.remote.versions = lambda packages: {**versions_here(packages), **versions}  # type: ignore[method-assign]
        return handle

    monkeypatch.setattr(ThreadCluster, "open_place", open_place)


def test_a_cluster_of_other_versions_ends_the_search_before_its_first_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_versions(monkeypatch, lambda cluster, machine: True, torch="1.0")
    with pytest.raises(InstallationError, match="machine-.* has other versions than the coordinator") as caught:
        run(tmp_path, monkeypatch, machines=2)
    assert "torch 1.0, here 2." in str(caught.value)
    assert not list(tmp_path.rglob("history.jsonl"))


def test_one_machine_of_other_versions_is_refused_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first: list[str] = []

    def is_other(cluster: ThreadCluster, machine: Any) -> bool:
        """Choose the first machine that joins while trials run."""
        joined = [name for name in cluster.opened_on if name not in first] if cluster._has_begun else []
        first.extend([] if cluster._has_begun else [machine.name])
        return bool(joined) and machine.name == joined[0]

    other_versions(monkeypatch, is_other, timm="0.1", numpy="0.2")
    events, result, engine = run(tmp_path, monkeypatch, machines=3, rate=0.1, seed=3)
    assert engine is not None
    said = [event.text for event in events if isinstance(event, Notice)]
    [text] = [text for text in said if "other versions" in text]
    refused = text.split()[2]
    assert refused in engine._lost
    assert f"{refused} has other versions than the coordinator, which changes results: timm 0.1, here" in text
    assert sum("numpy 0.2, here" in text and "last digits" in text for text in said) == 1
    assert all(one.state != "FAIL" and refused not in str(one.machine) for one in result.trials)
    # a called function is refused there just the same
    call = Call("automl_pt.study.executor.sample_trial:double", {"number": 4}, lambda caller: None, "doubling")
    config = SearchConfig(dataset="plain")
    other = ThreadCluster(ExecutorJob(config, "toy_trial:make", make, tmp_path), 1)
    other_versions(monkeypatch, lambda cluster, machine: True, torch="1.0")
    with pytest.raises(InstallationError, match="other versions"):
        list(other.call(call))
    other.close()


def test_files_are_written_in_an_order_that_resumes_when_cut_short(tmp_path: Path) -> None:
    names = ["history.jsonl", "run.json", "model.json", "checkpoints/last.json", "checkpoints/last-00001.pt", "a.txt"]
    source, target = tmp_path / "source", tmp_path / "target"
    for name in [*names, "weights-ab.safetensors", ".lock"]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    copy = FolderCopy(source)
    changes = copy.changes()
    assert ".lock" not in changes
    write_files(target, changes)
    written = sorted((path.stat().st_mtime_ns, path.name) for path in target.rglob("*") if path.is_file())
    order = [name for _, name in written]
    assert order[0] == "a.txt"
    expected = ["weights-ab.safetensors", "last-00001.pt", "model.json", "last.json", "run.json", "history.jsonl"]
    assert order[1:] == expected
    (source / "a.txt").unlink()
    (source / "model.json").write_text("new")
    write_files(target, copy.changes())
    assert not (target / "a.txt").exists()
    assert (target / "model.json").read_text() == "new"
    assert copy.changes() == {}


def test_a_step_after_the_trials_takes_the_settings_of_a_search_on_ray(tmp_path: Path) -> None:
    config = SearchConfig(dataset="plain", engine="ray", gpus_per_trial=0.5).model_dump(mode="json")
    given = {"directory": str(tmp_path), "model": str(tmp_path)}
    assert run_step("toy_trial:TOY", "test", config, given, "cpu", 1, NO_CALLER) is None


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a/../../b", ""])
def test_no_name_leads_out_of_the_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a name within a folder"):
        write_files(tmp_path / "in", {name: b"x"})
    with pytest.raises(ValueError, match="not a name within a folder"):
        write_files(tmp_path / "in", {name: None})


NUMBERS = st.floats(allow_nan=False)
FIGURES = ("train_loss", "val_loss", "val_accuracy", "val_top5", "lr", "images_per_second", "data_wait", "seconds")
RESULTS = st.builds(EpochResult, epoch=st.integers(1, 9), **dict.fromkeys(FIGURES, NUMBERS))
REASONS = {kind: st.builds(kind, st.just(3), st.text()) for kind in (TrialFailed, TrialCrashed, TrialLostPlace)}
MESSAGES = {
    TrialPlaced: st.builds(TrialPlaced, st.just(3), st.builds(Place, st.text(), st.text(), st.integers(), st.text())),
    PassAdvanced: st.builds(PassAdvanced, st.just(3), st.builds(PassProgress, st.integers(), st.integers())),
    ProxyRunEnded: st.builds(ProxyRunEnded, st.just(3), st.builds(ProxyRun, NUMBERS, NUMBERS, NUMBERS)),
    EpochEnded: st.builds(EpochEnded, st.just(3), RESULTS),
    TrialWaits: st.builds(TrialWaits, st.just(3), NUMBERS),
    IteratorEnded: st.just(IteratorEnded(3)),
    TrialStopped: st.just(TrialStopped(3)),
    **REASONS,
}


@given(st.one_of(*MESSAGES.values()))
def test_messages_cross_as_plain_values(message: Message) -> None:
    assert message_from_plain(json.loads(json.dumps(message_as_plain(message)))) == message


@pytest.mark.parametrize(
    "error", [DatasetError("rule", given="given", remedy="remedy"), ConfigError(["lr: too large", "epochs: too few"])]
)
def test_an_error_crosses_with_its_type_and_parts(error: AutomlError) -> None:
    found = message_from_plain(json.loads(json.dumps(message_as_plain(StudyFailed(3, error)))))
    assert isinstance(found, StudyFailed)
    assert type(found.error) is type(error)
    assert vars(found.error) == vars(error)


def test_every_message_is_tried_and_no_other_class_is_made() -> None:
    assert {*MESSAGES, StudyFailed} == set(get_args(Message))
    with pytest.raises(KeyError):
        message_from_plain({"message": "Path", "number": 3})


def test_a_trial_that_waits_for_a_place_is_told_once_with_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("automl_pt.study.executor.open_places.PATIENCE", 0.0)
    config = SearchConfig(dataset="sample", epochs=2)
    (tmp_path / "manifest.json").write_text('{"salt": "x"}')
    engine = ThreadCluster(ExecutorJob(config, "automl_pt.study.executor.sample_trial:make", make, tmp_path))
    there, engine.located = engine.located, lambda handle: None  # type: ignore[method-assign]
    trial = config.trial(backbone="resnet18", lr=0.1, batch_size=8, seed=1)
    engine.start(TrialSpec(0, trial, tmp_path / "0", 2, tmp_path / "manifest.json"))
    engine._placed()
    engine._placed()
    assert engine.notices() == ["waiting for a place: no machine"]
    engine.located = there  # type: ignore[method-assign]
    assert isinstance(engine._placed()[0], TrialPlaced)
    assert [text[:22] for text in engine.notices()] == ["a place was found on m"]
    engine.close(5)


def test_a_trial_that_waits_takes_the_place_that_becomes_free(tmp_path: Path) -> None:
    config = SearchConfig(dataset="sample", epochs=2)
    (tmp_path / "manifest.json").write_text('{"salt": "x"}')
    engine = ThreadCluster(ExecutorJob(config, "automl_pt.study.executor.sample_trial:make", make, tmp_path), 1)
    opened, there, ask = list[Any](), engine.located, engine.ask
    open_place = engine.open_place

    def first(handle: Any) -> bool:
        """There is room for the place that was opened first, which keeps it."""
        return handle is opened[0]

    engine.open_place = lambda avoid: opened.append(open_place(avoid)) or opened[-1]  # type: ignore[method-assign]
    engine.located = lambda handle: there(handle) if first(handle) else None  # type: ignore[method-assign]
    engine.ask = lambda handle, *given: ask(handle, *given) if first(handle) else Future()  # type: ignore[method-assign]
    trial = config.trial(backbone="resnet18", lr=0.1, batch_size=8, seed=1)
    for number in (0, 1):
        engine.start(TrialSpec(number, trial, tmp_path / str(number), 2, tmp_path / "manifest.json"))
    found = list[Message]()
    while sum(isinstance(message, IteratorEnded) for message in found) < 2:
        found += engine.wait(10)
    assert [message.number for message in found if isinstance(message, TrialPlaced)] == [0, 1]
    assert len(opened) == 2
    engine.close(5)


def test_all_that_is_said_of_a_trial_crosses_to_another_process(tmp_path: Path) -> None:
    config = TrainConfig(dataset="photos", lr=0.25, plugins=("one.py",))
    spec = TrialSpec(3, config, tmp_path / "out", 1.5, tmp_path / "manifest", (0.5, 2.0), True, math.inf)
    given = dict(parse_json(json.dumps(spec.as_plain()), not_finite=True))
    assert set(given) == {one.name for one in fields(TrialSpec)}
    assert TrialSpec.from_plain(given) == spec


def test_a_machine_without_the_images_trains_on_decoded_ones_that_come_once(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOML_PT_CACHE", str(tmp_path / "cache"))
    config = SearchConfig(dataset=str(tiny_folder), epochs=1, image_size=16, pretrained=False, device="cpu")
    manifest = tmp_path / "manifest.json"
    data = prepare(config, load_plugins(), manifest=manifest)
    assert data.pixels("train", 16).labels.size
    shutil.rmtree(tiny_folder)
    engine = ThreadCluster(ExecutorJob(config, "automl_pt.study.executor.trial_run:make_trial", make, tmp_path), 1)
    frozen = {"freeze": "backbone", "weights": str(tmp_path / "0")}
    for number, changes, worth_saving in ((0, {}, math.inf), (1, {}, -1.0), (2, frozen, math.inf), (3, frozen, -1.0)):
        trial = config.trial(backbone="timm/test_resnet", lr=0.1, batch_size=8, seed=number)
        trial, output = trial.model_copy(update=changes), tmp_path / str(number)
        engine.start(TrialSpec(number, trial, output, 1, manifest, worth_saving=worth_saving))
        found: list[Message] = []
        while not any(isinstance(message, IteratorEnded | TrialFailed | StudyFailed) for message in found):
            found += engine.wait(10)
        assert isinstance(found[-1], IteratorEnded), found
        # the weights of a head that would be removed at once do not travel
        assert (output / "model.json").exists() == (number != 3)
        assert (output / "history.jsonl").exists()
    [sent] = engine._pools
    assert (engine.job.directory / "disks" / engine.machines[0].name / "cache" / "pixels" / sent).is_file()
    engine.close()
