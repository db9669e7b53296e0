"""What a worker's process may do, and what is left of it: nothing, and the coordinator lives to tell."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ending_calls import end

from automl_pt.config import SearchConfig
from automl_pt.core.errors import PluginError
from automl_pt.study.executor.base import Call, TrialSpec
from automl_pt.study.executor.calls import returned
from automl_pt.study.executor.inline import InlineEngine
from automl_pt.study.executor.messages import TrialWaits
from automl_pt.study.executor.processes import LocalEngine
from automl_pt.study.executor.trial_run import _shared

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def call(how: str, mark: str = "") -> Call:
    arguments = {"how": how, "mark": mark}
    here: Any = partial(end, how, mark, "cpu", 1)
    return Call(
        "ending_calls:end", arguments, here, "the network of acme/bad", grace=5 if how == "until stopped" else 0
    )


def engine(logs: Path, limit: float | None = None) -> LocalEngine:
    return LocalEngine("ending_calls:make", ["cpu"], threads=3, logs=logs, limit=limit)


def left(mark: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark in path.read_bytes().decode(errors="replace"):
                found.append(path.parent.name)
        except OSError:  # it has ended meanwhile
            continue
    return found


def none_left(mark: str, seconds: float = 2.0) -> bool:
    deadline = time.monotonic() + seconds
    while left(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not left(mark)


ENDS = {
    "exit": "its process ended with exit code 0",
    "segv": "its process was ended by SIGSEGV",
    "kill": "its process was ended by SIGKILL, often because memory ran out",
    "system-exit": "SystemExit(0), which ends the whole program",
    "raise": "RuntimeError: boom",
    "hang": "nothing within 2 seconds",
}


def test_a_call_that_does_not_come_back_is_the_plugins_fault(tmp_path: Path) -> None:
    ours = engine(tmp_path, 2.0)
    try:
        for how, given in ENDS.items():
            with pytest.raises(PluginError) as caught:
                returned(ours.call(call(how)))
            assert caught.value.given.partition(";")[0] == given
        assert "raise RuntimeError" in (tmp_path / "worker-0.log").read_text()
        assert returned(ours.call(call("return"))) == 3  # in another process, where the last one has ended
        assert returned(ours.call(call("slow"))) == 3
    finally:
        ours.close()


def test_a_call_that_is_no_longer_wanted_ends_its_process(tmp_path: Path) -> None:
    ours = engine(tmp_path)
    assert returned(ours.call(call("hang"), lambda: True)) is None
    assert ours._workers == []
    ours.close()


def test_a_call_that_can_save_is_given_the_time_and_its_process_serves_the_next(tmp_path: Path) -> None:
    ours, told = engine(tmp_path), list[str]()
    assert returned(ours.call(call("until stopped"), lambda: bool(told)), told.append) == 3
    assert told == ["begun"]
    process = ours._workers[0].process
    assert returned(ours.call(call("return"))) == 3
    assert ours._workers[0].process is process
    ours.close()


def test_a_call_after_the_trials_has_the_process_and_the_threads_of_all(tmp_path: Path) -> None:
    ours = LocalEngine("toy_trial:make", ["cpu"] * 2, threads=3, logs=tmp_path / "logs")
    trial = SearchConfig(dataset="plain", epochs=2).trial(backbone="resnet18", lr=0.1, batch_size=8, seed=1)
    for number in range(2):
        ours.start(TrialSpec(number, trial, tmp_path / str(number), 1, tmp_path / "manifest.json"))
    held = set[int]()
    while len(held) < 2:
        held |= {message.number for message in ours.wait(1) if isinstance(message, TrialWaits)}
    first = ours._workers[0].process
    assert ours.halt(30) == []
    assert returned(ours.call(call("return"))) == 6
    assert [worker.process for worker in ours._workers] == [first]
    ours.close()


def test_in_this_process_a_call_cannot_end_the_program() -> None:
    with pytest.raises(PluginError, match=r"(?s)the network of acme/bad failed.*SystemExit\(0\), which ends the whole"):
        returned(InlineEngine(lambda spec, stop: iter(())).call(call("system-exit")))


@LINUX
def test_what_a_network_started_ends_with_its_worker(tmp_path: Path) -> None:
    ours, mark = engine(tmp_path), f"automl-pt-forked-{os.getpid()}"
    returned(ours.call(call("fork", mark)))
    deadline = time.monotonic() + 10
    while len(left(mark)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(left(mark)) == 2
    ours.close()
    assert none_left(mark)


SEARCH = """
import sys, time
from pathlib import Path
from automl_pt.study.executor.calls import returned
from test_keeper import call, engine
ours = engine(Path(sys.argv[1]))
returned(ours.call(call("fork", sys.argv[2])))
print("forked", flush=True)
time.sleep(60)
"""


@LINUX
def test_nothing_outlives_a_killed_coordinator_even_what_a_network_forked(tmp_path: Path) -> None:
    mark = f"automl-pt-orphan-{os.getpid()}"
    folders = (str(Path(__file__).parent), str(Path(__file__).parents[1]))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    words = [sys.executable, "-c", SEARCH, str(tmp_path), mark]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "forked\n"
        deadline = time.monotonic() + 60
        while len(left(mark)) < 3 and time.monotonic() < deadline:  # the coordinator's own, and both that were started
            time.sleep(0.05)
        worker = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
        process.wait()
    assert none_left(mark)
    deadline = time.monotonic() + 2
    while any(Path("/proc", number).exists() for number in worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path("/proc", number).exists() for number in worker)


def test_trials_with_other_options_of_their_backbone_share_the_data() -> None:
    config = SearchConfig(dataset="digits")
    one, two = (config.trial(backbone="resnet18", lr=rate, batch_size=8, seed=1) for rate in (0.1, 0.2))
    two = two.model_copy(update={"backbone_options": ("width=2",)})
    assert _shared(one) == _shared(two)
