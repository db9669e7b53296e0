"""Trackers: what they are told, how often, and that nothing of theirs reaches a result."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from tiny_runs import command, finished, write_plugin
from toy_trial import TOY

from automl_pt import train
from automl_pt.api.search import steps
from automl_pt.config import SearchConfig
from automl_pt.core.errors import PluginError, UnknownNameError
from automl_pt.plugins.hookspecs import TRACKING, hookimpl
from automl_pt.plugins.manager import load_plugins
from automl_pt.runs.tracking import HOOK_OF, Told, Trackers
from automl_pt.study import events
from automl_pt.testing import check_tracker
from automl_pt.tracker_events import EpochFinished, RunFinished, RunStarted, StudyFinished, TrackedRun, TrialFinished

#: writes one line of JSON for everything it is told, beside itself
TRACKER = """
import json
from pathlib import Path
from automl_pt import hookimpl

def write(kind, event, *more):
    with Path(__file__).with_suffix(".jsonl").open("a") as stream:
        print(json.dumps([kind, event.run.name if hasattr(event, "run") else event.study, *more]), file=stream)

@hookimpl
def run_started(event):
    write("run_started", event, event.epochs_done, event.settings["lr"])

@hookimpl
def epoch_finished(event):
    write("epoch_finished", event, event.epoch)

@hookimpl
def run_finished(event):
    write("run_finished", event, event.reason, event.epochs)

@hookimpl
def trial_finished(event):
    write("trial_finished", event, event.state, event.value, dict(event.params))

@hookimpl
def study_finished(event):
    write("study_finished", event, event.best_trial, event.value)
"""


def write_tracker(folder: Path) -> Path:
    path = folder / "scribe.py"
    path.write_text(TRACKER)
    return path


def told(folder: Path) -> list[list[Any]]:
    path = folder / "scribe.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class Listener:
    """A tracker that keeps what it is told, and does what the test wants on the way."""

    def __init__(self) -> None:
        self.heard: list[Told] = []

    def on(self, event: Told) -> None:
        self.heard.append(event)

    @hookimpl
    def run_started(self, event: RunStarted) -> None:
        self.on(event)

    @hookimpl
    def epoch_finished(self, event: EpochFinished) -> None:
        self.on(event)

    @hookimpl
    def run_finished(self, event: RunFinished) -> None:
        self.on(event)

    @hookimpl
    def trial_finished(self, event: TrialFinished) -> None:
        self.on(event)

    @hookimpl
    def study_finished(self, event: StudyFinished) -> None:
        self.on(event)


def search(
    directory: Path, listener: Listener, *, dataset: str = "plain", **settings: Any
) -> tuple[list[events.Event], events.Finished]:
    plugins = load_plugins()
    plugins.manager.register(listener, "ear")
    config = SearchConfig(
        **{"dataset": dataset, "epochs": 9, "trials": 4, "workers": 0, "trackers": ("ear",), **settings}
    )
    seen = list(steps(config, directory, objective=TOY, plugins=plugins))
    last = seen[-1]
    assert isinstance(last, events.Finished)
    return seen, last


def test_every_hook_has_a_value_of_its_own() -> None:
    assert sorted(HOOK_OF.values()) == sorted(TRACKING)


def test_a_search_tells_of_each_run_epoch_and_trial_once(tmp_path: Path) -> None:
    listener = Listener()
    seen, finished_ = search(tmp_path / "toy", listener)
    of_run: dict[str, list[Told]] = {}
    for event in listener.heard[:-1]:
        assert not isinstance(event, StudyFinished)
        of_run.setdefault(event.run.name, []).append(event)
    assert sorted(of_run) == [f"toy/trial-{number}" for number in range(4)]
    for name, story in of_run.items():
        trial = finished_.result.trials[int(name[-1])]
        assert [type(event).__name__ for event in story] == [
            "RunStarted",
            *["EpochFinished"] * trial.epochs,
            "RunFinished",
            "TrialFinished",
        ]
        epochs = [event for event in story if isinstance(event, EpochFinished)]
        assert {event.epoch: event.figures["val_loss"] for event in epochs} == trial.losses
        start, end = story[0], story[-1]
        assert isinstance(start, RunStarted)
        assert isinstance(end, TrialFinished)
        assert start.settings["lr"] == trial.params["lr"]
        assert (end.state, end.value, end.params) == (trial.state, trial.value, trial.params)
        assert start.run == TrackedRun(
            name, str(tmp_path / "toy" / "trials" / name[-1]), "toy", str(tmp_path / "toy"), trial.number
        )
    last = listener.heard[-1]
    assert isinstance(last, StudyFinished)
    assert finished_.result.best is not None
    assert (last.best_trial, last.value) == (finished_.result.best.number, finished_.result.best.value)


def test_no_tracker_is_asked_unless_it_is_named(tmp_path: Path) -> None:
    listener = Listener()
    search(tmp_path / "toy", listener, trackers=(), trials=1)
    assert listener.heard == []


def test_a_study_that_goes_on_tells_no_epoch_twice(tmp_path: Path) -> None:
    listener = Listener()
    plugins = load_plugins()
    plugins.manager.register(listener, "ear")
    config = SearchConfig(dataset="plain", epochs=9, trials=4, workers=0, trackers=("ear",))
    for count in (3, 8, 15):
        seen = 0
        for event in steps(config, tmp_path / "toy", objective=TOY, plugins=plugins):
            seen += isinstance(event, events.EpochDone)
            if seen == count:
                break
    _, last = search(tmp_path / "toy", listener)
    epochs = [(event.run.trial, event.epoch) for event in listener.heard if isinstance(event, EpochFinished)]
    assert len(set(epochs)) == len(epochs)
    # left between two epochs, not killed, the search tells of all of them
    assert sorted(epochs) == [(trial.number, epoch) for trial in last.result.trials for epoch in trial.losses]
    open_runs: set[str] = set()
    for event in listener.heard:
        if isinstance(event, RunStarted):
            assert event.run.name not in open_runs
            open_runs.add(event.run.name)
        if isinstance(event, RunFinished):
            open_runs.remove(event.run.name)
    assert open_runs == set()


def test_a_loss_that_is_not_finite_is_told_with_the_end_of_its_trial(tmp_path: Path) -> None:
    listener = Listener()
    search(tmp_path / "toy", listener, dataset="diverge-0", trials=1)
    kinds = [type(event).__name__ for event in listener.heard]
    assert kinds == ["RunStarted", "EpochFinished", "EpochFinished", "RunFinished", "TrialFinished", "StudyFinished"]
    last = [event for event in listener.heard if isinstance(event, EpochFinished)][-1]
    assert math.isnan(last.figures["val_loss"])


class Broken(Listener):
    def on(self, event: Told) -> None:
        super().on(event)
        random.seed(1)
        torch.set_num_threads(3)
        if len(self.heard) % 2:
            raise SystemExit("bye")
        raise ValueError("no disk")


def test_an_exception_is_reported_once_and_changes_no_result(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    seen, last = search(tmp_path / "toy", listener := Broken())
    _, quiet = search(tmp_path / "other" / "toy", Listener(), trackers=())
    notices = [event.text for event in seen if isinstance(event, events.Notice)]
    assert [text for text in notices if text.startswith("tracker")] == [
        "tracker ear (registered by hand): run_started failed with SystemExit: bye. The result is not affected; "
        "reported once"
    ]
    assert len(listener.heard) > 10  # it is told of what follows all the same
    assert torch.get_num_threads() == threads
    for one, other in zip(last.result.trials, quiet.result.trials, strict=True):
        assert (one.params, one.value, one.state) == (other.params, other.value, other.state)


def test_a_fault_is_told_with_the_distribution_and_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "acme_log-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-log\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[automl_pt]\nacme = acme_log_of_faults\n")
    source = "from automl_pt import hookimpl\n\n@hookimpl\ndef epoch_finished(event):\n    raise OSError('no disk')\n"
    (tmp_path / "acme_log_of_faults.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    said: list[str] = []
    Trackers(load_plugins(), ["acme"], report=said.append).tell(EpochFinished(TrackedRun("one", "/nowhere"), 1, {}))
    assert said == [
        "tracker acme (acme-log 1.2): epoch_finished failed with OSError: no disk. The result is not affected; "
        "reported once"
    ]


class Homeless(Listener):
    def on(self, event: Told) -> None:
        with TemporaryDirectory() as folder:
            os.chdir(folder)


def test_a_hook_that_removes_the_folder_it_works_in_ends_nothing() -> None:
    plugins, said, before = load_plugins(), list[str](), Path.cwd()
    plugins.manager.register(Homeless(), "ear")
    Trackers(plugins, ["ear"], report=said.append).tell(EpochFinished(TrackedRun("one", "/nowhere"), 1, {}))
    assert Path.cwd() == before
    assert ["changed the working folder; it was restored" in text for text in said] == [True]


def test_a_working_folder_that_is_gone_is_no_fault_of_a_tracker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins, said, listener = load_plugins(), list[str](), Listener()
    plugins.manager.register(listener, "ear")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    Trackers(plugins, ["ear"], report=said.append).tell(EpochFinished(TrackedRun("one", "/nowhere"), 1, {}))
    assert (len(listener.heard), said) == (1, [])


class Stubborn(Listener):
    def on(self, event: Told) -> None:
        for _ in range(2):  # as a library that tries again does
            with suppress(Exception):
                time.sleep(60)
        time.sleep(60)


def test_a_hook_that_tries_again_is_left_all_the_same() -> None:
    plugins, said, started = load_plugins(), list[str](), time.monotonic()
    plugins.manager.register(Stubborn(), "ear")
    trackers = Trackers(plugins, ["ear"], report=said.append, limit=0.2)
    trackers.tell(EpochFinished(TrackedRun("one", "/nowhere"), 1, {}))
    assert time.monotonic() - started < 5
    assert ["took longer than 0.2 s" in text for text in said] == [True]


class Slow(Listener):
    def on(self, event: Told) -> None:
        super().on(event)
        time.sleep(60)


def test_a_hook_that_hangs_is_left_and_told_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    plugins, listener = load_plugins(), Slow()
    plugins.manager.register(listener, "ear")
    trackers = Trackers(plugins, ["ear"], limit=0.2)
    run, started = TrackedRun("one", "/nowhere"), time.monotonic()
    for epoch in (1, 2, 3):
        trackers.tell(EpochFinished(run, epoch, {}))
    assert time.monotonic() - started < 5
    assert len(listener.heard) == 1
    assert caplog.messages == [
        "tracker ear (registered by hand): epoch_finished: it took longer than 0.2 s; it is not called again. The "
        "result is not affected; reported once"
    ]


def test_an_unknown_tracker_ends_the_command_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"(?s)unknown tracker.*'eat'.*did you mean 'ear'\? install"):
        search(tmp_path / "toy", Listener(), trackers=("eat",))
    assert not (tmp_path / "toy").exists()


def _environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "AUTOML_PT_CACHE": str(cache), "TOY_SECONDS": "0.01"}


def _kill_after(words: list[str], epochs: int, folder: Path) -> None:
    """Run a command and kill it once the tracker has been told of so many epochs."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, env=_environment(folder / "cache"))
    while process.poll() is None and [entry[0] for entry in told(folder)].count("epoch_finished") < epochs:
        time.sleep(0.005)
    process.kill()
    process.wait()


@pytest.mark.slow
def test_a_run_killed_and_gone_on_with_tells_no_epoch_twice(tiny_folder: Path, tmp_path: Path) -> None:
    """What is killed may have been told once or not at all: at most once."""
    plugin, scribe = write_plugin(tmp_path), write_tracker(tmp_path)
    words = command(tiny_folder, tmp_path / "run", plugin, epochs=40, patience=40)
    words += ["--plugin", str(scribe), "--tracker", "scribe"]
    _kill_after(words, 12, tmp_path)
    code, _, errors = finished(words, tmp_path / "cache")
    assert code == 0, errors
    epochs = [entry[2] for entry in told(tmp_path) if entry[0] == "epoch_finished"]
    assert epochs == sorted(set(epochs))
    assert len(epochs) >= 39  # a kill costs the tracker one epoch at most
    assert told(tmp_path)[-1] == ["run_finished", "run", "completed", 40]


def test_a_run_that_has_ended_tells_nothing_more(tiny_folder: Path, tmp_path: Path) -> None:
    plugins = load_plugins([str(write_plugin(tmp_path)), str(write_tracker(tmp_path))])
    settings: dict[str, Any] = {"backbone": "tiny", "epochs": 2, "batch_size": 4, "plugins": plugins, "threads": 1}
    settings |= {"trackers": ("scribe",), "output": tmp_path / "run"}
    for result in train(str(tiny_folder), **settings):
        assert result.epoch == 1
        break
    assert [entry[2] for entry in told(tmp_path)] == [0, 1, "interrupted"]
    assert [result.epoch for result in train(str(tiny_folder), **settings)] == [2]
    assert [entry[2] for entry in told(tmp_path)] == [0, 1, "interrupted", 1, 2, "completed"]
    assert list(train(str(tiny_folder), **settings)) == []
    assert len(told(tmp_path)) == 6


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from toy_trial import TOY
from automl_pt.config import SearchConfig
from automl_pt.api.search import steps

asked = dict(dataset="plain", epochs=9, trials=6, workers={workers}, plugins=({scribe!r},), trackers=("scribe",))
for event in steps(SearchConfig(**asked), Path({folder!r}), objective=TOY):
    pass
"""


@pytest.mark.parametrize(("kills", "workers"), [((7,), 0), pytest.param((2, 7, 11), 2, marks=pytest.mark.slow)])
def test_a_search_killed_and_gone_on_with_tells_no_epoch_twice(
    kills: tuple[int, ...], workers: int, tmp_path: Path
) -> None:
    scribe, tests = write_tracker(tmp_path), str(Path(__file__).parents[1])
    code = KILLED.format(tests=tests, scribe=str(scribe), folder=str(tmp_path / "toy"), workers=workers)
    words = [sys.executable, "-c", code]
    for epochs_told in kills:
        _kill_after(words, epochs_told, tmp_path)
    left, _, errors = finished(words, tmp_path / "cache")
    assert left == 0, errors
    epochs = [(entry[1], entry[2]) for entry in told(tmp_path) if entry[0] == "epoch_finished"]
    assert len(epochs) == len(set(epochs)) > 15
    ended = [entry[1] for entry in told(tmp_path) if entry[0] == "trial_finished"]
    assert len(ended) == len(set(ended)) >= 4  # a kill may cost a trial's end, too
    assert told(tmp_path)[-1][0] == "study_finished"


class Late(Listener):
    def on(self, event: Told) -> None:
        if isinstance(event, TrialFinished) and event.value is None:
            raise TypeError("value must be a number")


@pytest.mark.parametrize(("listener", "fits"), [(Listener(), True), (Late(), False), (Broken(), False)])
def test_the_contract_of_a_tracker(listener: Listener, fits: bool, tmp_path: Path) -> None:
    plugins = load_plugins()
    plugins.manager.register(listener, "ear")
    if fits:
        assert check_tracker("ear", tmp_path, plugins=plugins) == listener.heard
        return
    with pytest.raises(PluginError, match=r"(?s)a tracker accepts every event.*tracker ear.*the hook of"):
        check_tracker("ear", tmp_path, plugins=plugins)
