"""The Slurm recipe of the documents, run with stubs in place of Slurm's and Ray's commands; all processes are real."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from toy_trial import TOY

from automl_pt.api import search
from automl_pt.config import SearchConfig

HERE = Path(__file__).parent
RECIPE = HERE.parents[1] / "docs" / "how-to" / "slurm.sbatch"
#: each notes its arguments; Ray's head listens, as the real one does, and ends at a signal, as `srun` ends its step
STUBS = {
    "scontrol": 'if [ "$1" = show ]; then printf "node-1\\nnode-2\\n"; else echo "$@" >> requeued; fi',
    "srun": 'echo "$@" >> steps; while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "ray": 'for one in "$@"; do [[ $one == --port=* ]] && port=${one#--port=}; done\n'
    'exec {python} -S -c "import socket, sys, time; port = sys.argv[1]; '
    's = socket.create_server((\'127.0.0.1\', int(port))) if port else None; time.sleep(600)" "${{port:-}}"',
    "automl-pt": 'exec {python} {here}/slurm_search.py "$@"',
}
TRIALS = 6


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a job on two nodes."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, body in STUBS.items():
        text = body.replace("{python}", sys.executable).replace("{here}", str(HERE))
        (folder / name).write_text("#!/bin/bash\n" + text.replace("{{", "{").replace("}}", "}") + "\n")
        (folder / name).chmod(0o755)
    slurm = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "node-[1-2]", "SLURM_CPUS_PER_TASK": "4"}
    path = {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join([str(HERE.parent), *sys.path])}
    return {**os.environ, **slurm, **path, "HEAD_ADDRESS": "127.0.0.1", "TOY_SECONDS": "0.05"}


def submit(job: dict[str, str], folder: Path, **more: Any) -> subprocess.Popen[str]:
    command = ["bash", str(RECIPE), "plain", "--trials", str(TRIALS)]
    return subprocess.Popen(
        command, cwd=folder, env=job, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more
    )


def await_epoch(folder: Path, process: subprocess.Popen[str]) -> None:
    while not list(folder.glob("study/trials/*/history.jsonl")):
        assert process.poll() is None
        time.sleep(0.05)


def epochs(folder: Path) -> int:
    """Return how many epochs the trials of the study have done."""
    return sum(len(path.read_text().splitlines()) for path in folder.glob("study/trials/*/history.jsonl"))


def figures(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**trial, "seconds": 0} for trial in trials]


@pytest.mark.parametrize(
    "number",
    [signal.SIGUSR1, *(pytest.param(one, marks=pytest.mark.slow) for one in (signal.SIGTERM, signal.SIGKILL))],
)
def test_a_job_that_ends_early_continues_when_it_runs_again(
    number: signal.Signals, job: dict[str, str], tmp_path: Path
) -> None:
    first = submit(job, tmp_path, start_new_session=True)
    await_epoch(tmp_path, first)
    if number == signal.SIGKILL:  # a node fails, with all that runs there
        os.killpg(first.pid, number)
    else:  # to the script alone, as `--signal=B:` does
        first.send_signal(number)
    said, _ = first.communicate(timeout=120)
    assert first.returncode == {signal.SIGUSR1: 138, signal.SIGTERM: 143, signal.SIGKILL: -9}[number], said
    requeued = tmp_path / "requeued"
    assert requeued.exists() == (number == signal.SIGUSR1)
    if requeued.exists():
        assert requeued.read_text() == f"requeue {job['SLURM_JOB_ID']}\n"
        assert "all trials are saved, and the job is queued again" in said
    before = epochs(tmp_path)
    again = submit(job, tmp_path)
    said, _ = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert 0 < before < epochs(tmp_path)
    config = SearchConfig(dataset="plain", epochs=9, trials=TRIALS, workers=0)
    *_, finished = search.steps(config, tmp_path / "here", objective=TOY)
    uninterrupted = [one.to_dict() for one in finished.result.trials]
    assert figures(json.loads((tmp_path / "trials.json").read_text())) == figures(uninterrupted)
    port = 20000 + int(job["SLURM_JOB_ID"]) % 20000
    assert (tmp_path / "addresses").read_text() == f"127.0.0.1:{port} 64\n" * 2
    steps = (tmp_path / "steps").read_text().splitlines()
    head, worker = ("--nodes=1 --ntasks=1 --nodelist=node-" + end for end in ("1", "2"))
    assert [step.partition(" ray ")[0] for step in steps] == [head, worker] * 2
    assert f"--head --node-ip-address=127.0.0.1 --port={port}" in steps[0]
    assert f"--address=127.0.0.1:{port}" in steps[1]
    with pytest.raises(ConnectionRefusedError):  # nothing outlives the job
        socket.create_connection(("127.0.0.1", port), 1)


def test_a_name_that_means_only_its_own_node_is_refused(job: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "bin" / "getent").write_text("#!/bin/bash\necho 127.0.1.1 STREAM node-1\n")
    (tmp_path / "bin" / "getent").chmod(0o755)
    process = submit({**job, "HEAD_ADDRESS": ""}, tmp_path)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "the name node-1 means only this node (127.0.1.1): submit with HEAD_ADDRESS=" in said
