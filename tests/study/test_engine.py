from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from automl_pt.config import SearchConfig
from automl_pt.core.errors import AutomlError, CheckpointError, ConfigError, DatasetError, OutputError
from automl_pt.core.locks import locked
from automl_pt.study.budget import Budget
from automl_pt.study.executor.base import TrialSpec
from automl_pt.study.executor.devices import devices_for, threads_for
from automl_pt.study.executor.failures import failure_of
from automl_pt.study.executor.messages import (
    EpochEnded,
    Message,
    StudyFailed,
    TrialCrashed,
    TrialFailed,
    TrialStopped,
)
from automl_pt.study.executor.processes import LocalEngine
from automl_pt.study.executor.trial_run import await_leaving
from automl_pt.study.model_store import ModelStore, discard, ranked
from automl_pt.study.records import TrialRecord

CONFIG = SearchConfig(dataset="plain")


def made(kind: type[AutomlError]) -> AutomlError:
    return kind("rule", given="given", remedy="remedy")


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (MemoryError(), "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."), "out of memory"),
        (ValueError("bad"), "ValueError: bad"),
        (RuntimeError(), "RuntimeError: no message"),
        (ConfigError(["batch_size: too large"]), "ConfigError: settings: 1 mistake"),
    ],
)
def test_what_belongs_to_the_trial_fails_it(error: Exception, failure: str) -> None:
    message = failure_of(3, error)
    assert isinstance(message, TrialFailed)
    assert message.reason.startswith(failure)


@pytest.mark.parametrize("error", [made(OutputError), made(DatasetError), ConfigError(["image_size: too small"])])
def test_what_every_trial_would_meet_fails_the_study(error: AutomlError) -> None:
    assert failure_of(3, error) == StudyFailed(3, error)


def test_a_damaged_checkpoint_is_the_trials_own() -> None:
    assert isinstance(failure_of(3, made(CheckpointError)), TrialFailed)


def test_a_worker_that_cannot_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    engine = LocalEngine("no.such.module:make", ["cpu"], threads=1, logs=tmp_path / "logs")
    config = CONFIG.trial(backbone="resnet18", lr=0.1, batch_size=8, seed=1)
    engine.start(TrialSpec(0, config, tmp_path / "0", 1, tmp_path / "manifest.json"))
    [failure] = engine.wait(30)
    engine.close()
    assert isinstance(failure, StudyFailed)
    assert failure.number == 0
    message = str(failure.error)
    assert "a worker process cannot start" in message
    assert "ModuleNotFoundError: No module named 'no'" in message
    assert "--workers 0" in message


def test_a_worker_killed_while_it_starts_has_crashed_and_is_replaced(tmp_path: Path) -> None:
    engine = LocalEngine("toy_trial:make", ["cpu"], threads=1, logs=tmp_path / "logs")
    config = CONFIG.trial(backbone="resnet18", lr=0.1, batch_size=8, seed=1)
    spec = TrialSpec(0, config, tmp_path / "0", 1, tmp_path / "manifest.json")
    engine.start(spec)
    engine._workers[0].process.kill()
    assert engine.wait(30) == [TrialCrashed(0, "its process was ended by SIGKILL, often because memory ran out")]
    engine.start(spec)
    assert isinstance(until_told(engine)[0], EpochEnded)
    engine.close()


def test_a_worker_leaves_sigterm_to_its_coordinator_and_saves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # a service manager and a scheduler send it to every process of a job: that is no crash, and no epoch is lost
    monkeypatch.setenv("TOY_SECONDS", "0.05")
    engine = LocalEngine("toy_trial:make", ["cpu"], threads=1, logs=tmp_path / "logs")
    config = SearchConfig(dataset="plain", epochs=100).trial(backbone="resnet18", lr=0.1, batch_size=8, seed=1)
    engine.start(TrialSpec(0, config, tmp_path / "0", 100, tmp_path / "manifest.json"))
    assert isinstance(until_told(engine)[0], EpochEnded)
    engine._workers[0].process.terminate()
    assert engine.close(30)[-1] == TrialStopped(0)


def test_a_worker_that_ran_out_of_memory_is_replaced(tmp_path: Path) -> None:
    engine = LocalEngine("toy_trial:make", ["cpu"], threads=1, logs=tmp_path / "logs")
    config = SearchConfig(dataset="memory-0").trial(backbone="resnet18", lr=0.1, batch_size=8, seed=1)
    engine.start(TrialSpec(0, config, tmp_path / "0", 2, tmp_path / "manifest.json"))
    process, messages = engine._workers[0].process, list[Message]()
    while not any(isinstance(message, TrialFailed) for message in messages):
        messages += until_told(engine)
    assert messages[-1] == TrialFailed(0, "out of memory")
    assert process.returncode is not None
    engine.start(TrialSpec(1, config, tmp_path / "1", 1, tmp_path / "manifest.json"))
    assert isinstance(until_told(engine)[0], EpochEnded)
    engine.close()


def until_told(engine: LocalEngine) -> list[Message]:
    messages: list[Message] = []
    while not messages:
        messages = engine.wait(30)
    return messages


def test_a_trial_waits_for_the_process_that_leaves_its_folder(tmp_path: Path) -> None:
    with ExitStack() as stack:
        stack.enter_context(locked(tmp_path / ".lock", wait=False))
        await_leaving(tmp_path, lambda: False, 0.05)  # not for ever
        await_leaving(tmp_path, lambda: True)  # nor where the search ends
        threading.Timer(0.2, stack.pop_all().close).start()
    await_leaving(tmp_path, lambda: False)
    with locked(tmp_path / ".lock", wait=False):
        pass


TALK = """
import socket, sys, threading
from automl_pt.study.executor.worker import CoordinatorLink
sys.setswitchinterval(1e-6)
ours, theirs = socket.socketpair()
link, count = CoordinatorLink(theirs), 20_000
def drain():
    while ours.recv(1 << 16):
        pass
threading.Thread(target=drain, daemon=True).start()
threading.Thread(target=ours.sendall, args=[b'{"do": "resume"}\\n' * count], daemon=True).start()
for _ in range(count):
    link.send(number=1)
print(sum(link._commands.get(timeout=5)["do"] == "resume" for _ in range(count)), flush=True)
"""


def test_no_command_is_lost_while_a_worker_speaks() -> None:
    told = subprocess.run([sys.executable, "-c", TALK], capture_output=True, text=True, check=False)
    assert told.stdout == "20000\n", told.stderr


def test_one_worker_per_core_and_no_more_than_trials() -> None:
    assert devices_for("cpu", None, 1) == ["cpu"]
    assert devices_for("cpu", 3, 16) == ["cpu"] * 3
    assert threads_for(5, 2) == 5
    assert threads_for(None, 10_000) == 1


def record(number: int, state: str, value: float | None, reason: str = "completed") -> TrialRecord:
    return TrialRecord(number, state, {}, value, 1, 1.0, reason, {})


def test_complete_trials_come_first_and_diverged_ones_never() -> None:
    records = [
        record(0, "COMPLETE", 0.5),
        record(1, "PRUNED", 0.1),
        record(2, "COMPLETE", 0.4),
        record(3, "PRUNED", 0.01, "diverged"),
        record(4, "FAIL", None, "failed: x"),
        record(5, "COMPLETE", 0.4),
    ]
    assert [one.number for one in ranked(records)] == [2, 5, 0, 1]


def test_discarding_keeps_what_tells_of_the_trial(tmp_path: Path) -> None:
    for name in ("history.jsonl", "run.json", "model.json", "weights-abc.safetensors", "checkpoints/last.pt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    discard(tmp_path, weights=False)
    assert not (tmp_path / "checkpoints").exists()
    assert (tmp_path / "model.json").exists()
    discard(tmp_path, weights=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.jsonl", "run.json"]


def test_the_best_of_those_that_ended_keep_their_weights_for_those_under_way_may_fail(tmp_path: Path) -> None:
    model_store = ModelStore(tmp_path, lambda source, target: None)
    records = [record(number, "RUNNING", 0.1 * number, "paused") for number in (1, 2)]
    records += [record(number, "PRUNED", 0.1 * number, "pruned") for number in (3, 4, 5)]
    for one in records:
        model_store.output(one.number).mkdir(parents=True)
        (model_store.output(one.number) / "model.json").touch()
    model_store.tidy(records, 2)
    assert [one.number for one in records if model_store.holds(one.number)] == [1, 2, 3, 4]


def test_the_budget_counts_parts_of_epochs() -> None:
    now = [0.0]
    budget = Budget(100.0, clock=lambda: now[0])
    budget.begin()
    for share in (0.25, 0.75):
        now[0] += 8 * share
        budget.count(8 * share, share)
    assert budget.epochs == 1
    assert budget.needed(2.5) == pytest.approx(20.0)
    assert budget.longest_epoch == pytest.approx(8.0)


def test_the_budget_estimates_from_what_it_saw() -> None:
    now = [0.0]
    budget = Budget(100.0, slots=2, images=(10, 10), clock=lambda: now[0])
    assert budget.needed(10) is None
    assert budget.allows(1000, 1)
    now[0] = 7.0
    budget.begin()
    for _ in range(4):
        now[0] += 5.0
        budget.count(10.0)
    assert budget.needed(8) == pytest.approx(40.0)
    assert budget.reserve == pytest.approx(10.5)
    assert budget.left() == pytest.approx(100 - 27 - 10.5)
    assert budget.allows(12, 1)
    assert not budget.allows(13, 1)
    assert not budget.allows(1, 7)
    assert budget.note_progress(4) == (0.5, 20.0)
    now[0] = 50.0
    assert budget.estimate_error() == pytest.approx(47 / 50 - 1)
