"""Places with disks of their own: what is lost with them, and what must not be."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from thread_cluster import ThreadCluster
from toy_trial import TOY

from automl_pt.api import search
from automl_pt.config import SearchConfig
from automl_pt.data.prepare import prepare
from automl_pt.plugins.executors import ExecutorFactory
from automl_pt.plugins.manager import load_plugins
from automl_pt.study import setup as opening
from automl_pt.study.concluding import run as run_step
from automl_pt.study.events import EpochDone, Notice
from automl_pt.study.executor.base import NO_CALLER, ExecutorJob, Report, TrialSpec
from automl_pt.study.executor.remote_place import report_as_plain, report_from_plain
from automl_pt.study.executor.run_files import FolderCopy, write_files
from automl_pt.study.executor.sample_trial import make
from automl_pt.testing import check_executor

CLUSTER = ExecutorFactory("threads", ThreadCluster)


def test_threads_with_disks_of_their_own_keep_the_contract() -> None:
    check_executor(CLUSTER, lose=lambda engine: engine.lose_a_busy_one())  # type: ignore[attr-defined]


def run(
    directory: Path, monkeypatch: pytest.MonkeyPatch, **cluster: Any
) -> tuple[list[Any], Any, ThreadCluster | None]:
    """Search the toy, on threads that may be lost where `cluster` says so; return events, result and executor."""
    config = SearchConfig(dataset="plain", epochs=9, trials=10, workers=0)
    made: list[ThreadCluster] = []

    def engine(config: SearchConfig, directory: Path, *others: Any) -> ThreadCluster:
        made.append(ThreadCluster(ExecutorJob(config, "toy_trial:make", make, directory), **cluster))
        return made[0]

    with monkeypatch.context() as patch:
        if cluster:
            patch.setattr(opening, "_make_engine", engine)
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


REPORTS = st.one_of(
    st.builds(lambda at: Report(3, held=at), st.floats(0, 9)),
    st.just(Report(3, ended=True)),
    st.just(Report(3, left=True)),
    st.builds(lambda text: Report(3, failure=text), st.text()),
)


@given(REPORTS)
def test_reports_cross_as_plain_values(report: Report) -> None:
    assert report_from_plain(3, report_as_plain(report)) == report


def test_a_trial_that_waits_for_a_place_is_told_once_with_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("automl_pt.study.executor.mirrored.PATIENCE", 0.0)
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
    assert engine._placed()[0].place is not None
    assert [text[:22] for text in engine.notices()] == ["a place was found on m"]
    engine.close(5)


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
    for number in (0, 1):
        trial = config.trial(backbone="timm/test_resnet", lr=0.1, batch_size=8, seed=number)
        engine.start(TrialSpec(number, trial, tmp_path / str(number), 1, manifest))
        found: list[Report] = []
        while not any(report.ended or report.failure or report.fatal for report in found):
            found += engine.wait(10)
        assert found[-1].ended, found
        assert (tmp_path / str(number) / "model.json").exists()
    [sent] = engine._pools
    assert (engine.job.directory / "disks" / engine.machines[0].name / "cache" / "pixels" / sent).is_file()
    engine.close()
