"""How many trials share a GPU, without one: the arithmetic, the life of MPS's daemon (a stub), and exhausted memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_trial import TOY

from automl_pt.api import search
from automl_pt.config import SearchConfig
from automl_pt.core.errors import DeviceError
from automl_pt.study import setup as opening
from automl_pt.study.events import Notice
from automl_pt.study.executor.base import ExecutorJob
from automl_pt.study.executor.gpu_share import GAIN, MOST, TrialsPerGpu, gain, memory_limit, room
from automl_pt.study.executor.mps import CONTROL, Mps
from automl_pt.study.executor.processes import make_executor
from automl_pt.study.executor.sample_trial import make
from automl_pt.study.executor.shared_gpu import SharedGpuEngine

GIB = 2**30


@pytest.mark.parametrize(
    ("free", "need", "trials"),
    [
        *((80 * GIB, 2 * GIB, 28), (80 * GIB, 40 * GIB, 1), (16 * GIB, 4 * GIB, 3), (8 * GIB, 30 * GIB, 1)),
        *((8 * GIB, 0, 14), (0, GIB, 1), (140 * GIB, 30 * GIB, 4)),
    ],
)
def test_as_many_trials_fit_as_the_free_memory_holds(free: int, need: int, trials: int) -> None:
    assert room(free, need) == trials


@given(st.integers(0, 200 * GIB), st.integers(0, 100 * GIB))
def test_a_trial_that_fits_is_within_its_limit(free: int, need: int) -> None:
    trials = room(free, need)
    limit = memory_limit(free, trials)
    assert limit == 0 if trials == 1 else need <= limit
    assert trials * limit <= free


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"a": [10.0]}, {"a": [10.0]}, 2.0),
        ({"a": [10.0]}, {"a": [5.0]}, 1.0),
        ({"a": [10.0, 12.0], "b": [100.0]}, {"a": [5.5], "b": [80.0]}, 1.3),
        ({"a": [10.0]}, {"b": [10.0]}, None),
        ({}, {}, None),
    ],
)
def test_the_gain_compares_speeds_of_the_same_settings(before: Any, after: Any, expected: float | None) -> None:
    assert gain(before, 1, after, 2) == pytest.approx(expected)


def simulated(
    throughput: dict[int, float], *, free: int = 140 * GIB, need: int = GIB
) -> tuple[TrialsPerGpu, list[str]]:
    """Let trials report the speeds that a GPU with this throughput gives them."""
    share, said = TrialsPerGpu(free=free), list[str]()
    share.learn_memory(free, need)
    for _ in range(60):
        text = share.learn_speed("a", throughput[share.count] / share.count)
        said += [text] if text else []
    return share, said


@pytest.mark.parametrize(
    ("throughput", "count"),
    [
        ({1: 100, 2: 103}, 1),  # in turns
        ({1: 100, 2: 170, 4: 180}, 2),
        ({1: 100, 2: 180, 4: 260, 8: 280}, 4),
        ({1: 100, 2: 190, 4: 350, 8: 600}, 8),
        ({1: 100, 2: 100 * GAIN + 1, 4: 100}, 2),
    ],
)
def test_trials_are_doubled_while_the_gpu_does_more(throughput: dict[int, float], count: int) -> None:
    share, said = simulated(throughput)
    assert (share.count, share.is_settled) == (count, True)
    assert said[0] == "2 trials share each GPU now, to measure whether they do more together"
    assert ("which is not worth it" in said[-1]) == (count < MOST)


def test_memory_bounds_what_is_tried() -> None:
    share, said = simulated({1: 100, 2: 190}, free=10 * GIB, need=4 * GIB)
    assert said[-1].endswith("2 trials share each GPU: its memory has room for 2")
    share, said = simulated({1: 100}, free=10 * GIB, need=6 * GIB)
    assert said == ["one trial has each GPU: its memory has room for 1"]
    # without a measured need nothing is tried, and memory beside others is not what a GPU has
    share = TrialsPerGpu(free=80 * GIB)
    assert [share.learn_speed("a", 1.0) for _ in range(9)] == [None] * 9
    share = TrialsPerGpu(4, free=80 * GIB)
    share.learn_memory(20 * GIB, GIB)
    assert (share.free, share.need) == (80 * GIB, GIB)


def test_exhausted_memory_halves_the_number_for_good() -> None:
    share = TrialsPerGpu(4)
    assert share.exhausted() == (
        "the GPU's memory did not suffice for 4 trials at once; 2 trials share each GPU from now on"
    )
    assert str(share.exhausted()).endswith("one trial has each GPU from now on")
    assert share.exhausted() is None  # its own fault
    share.learn_memory(80 * GIB, GIB)
    assert [share.learn_speed("a", 100.0) for _ in range(9)] == [None] * 9
    assert share.count == 1


DAEMON = """#!/bin/sh
if [ "$1" = -d ]; then
    [ -n "$MPS_FAILS" ] && { echo "no permission"; exit 1; }
    sleep 600 > /dev/null 2>&1 & echo $! > "$CUDA_MPS_PIPE_DIRECTORY/pid"; cp "$CUDA_MPS_PIPE_DIRECTORY/pid" "$MPS_PID"
else
    read word; [ "$word" = quit ] && kill "$(cat "$CUDA_MPS_PIPE_DIRECTORY/pid")"
fi
"""


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a stub of MPS's control program on the path; return the file that names its daemon's process."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / CONTROL).write_text(DAEMON)
    (folder / CONTROL).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("MPS_PID", str(tmp_path / "pid"))
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY", raising=False)
    return tmp_path / "pid"


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ends(process: int) -> bool:
    deadline = time.monotonic() + 30
    while is_alive(process) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_alive(process)


def test_the_daemon_lives_as_long_as_the_search(daemon: Path) -> None:
    mps = Mps()
    assert mps.start() is None
    folder = Path(mps.environment["CUDA_MPS_PIPE_DIRECTORY"])
    process = int(daemon.read_text())
    assert is_alive(process)
    assert folder.stat().st_mode & 0o77 == 0
    mps.close()
    assert ends(process)
    assert not folder.exists()
    assert mps.environment == {}
    mps.close()


def test_the_daemon_does_not_outlive_a_killed_coordinator(daemon: Path) -> None:
    code = "import os; from automl_pt.study.executor.mps import Mps; Mps().start(); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert ends(int(daemon.read_text()))


def test_without_mps_the_reason_is_told(daemon: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MPS_FAILS", "1")
    assert Mps().start() == "MPS does not start (no permission), so trials share a GPU in turns"
    with monkeypatch.context() as patch:
        patch.setenv("CUDA_MPS_PIPE_DIRECTORY", "/var/own")  # the user's own daemon
        assert Mps().start() is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert str(Mps().start()).startswith("MPS is not installed")


def test_a_trial_without_memory_beside_others_is_repeated_with_fewer(
    daemon: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[SharedGpuEngine] = []

    def engine(job: ExecutorJob, plugins: Any) -> SharedGpuEngine:
        options: dict[str, Any] = {"threads": lambda workers: 1, "logs": job.directory / "logs", "limit": None}
        made.append(SharedGpuEngine("toy_trial:make", ["cpu"], TrialsPerGpu(2, free=GIB), **options))
        return made[0]

    monkeypatch.setattr(opening, "make_engine", engine)
    config = SearchConfig(dataset="memory-1", epochs=3, trials=3, pruner="none")
    events = list(search.steps(config, tmp_path / "study", objective=TOY))
    said = [event.text for event in events if isinstance(event, Notice)]
    shrunk = "the GPU's memory did not suffice for 2 trials at once; one trial has each GPU from now on"
    assert f"trial 1: {shrunk}; it resumes from its last epoch" in said
    states = {trial.number: (trial.state, trial.reason) for trial in events[-1].result.trials}  # type: ignore[attr-defined]
    assert states[1] == ("FAIL", "failed: out of memory")  # also alone, so it is its own fault
    assert states[0][0] == states[2][0] == "COMPLETE"
    assert made[0].slots == 1
    assert ends(int(daemon.read_text()))


@pytest.mark.parametrize("settings", [{"workers": 2}, {"engine": "ray"}, {"engine": "inline"}])
def test_the_number_of_trials_is_said_once(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="trials_per_gpu says how many worker processes there are"):
        SearchConfig(dataset="x", trials_per_gpu="auto", **settings)


@pytest.mark.parametrize("asked", ["0", "many", "1.5", -1])
def test_it_is_a_number_or_auto(asked: Any) -> None:
    with pytest.raises(ValueError, match="trials_per_gpu"):
        SearchConfig(dataset="x", trials_per_gpu=asked)


def test_without_a_gpu_there_is_nothing_to_share(tmp_path: Path) -> None:
    config = SearchConfig(dataset="x", trials_per_gpu=2, device="cpu")
    with pytest.raises(DeviceError, match="no GPU that trials could share"):
        make_executor(ExecutorJob(config, "toy_trial:make", make, tmp_path))
