"""The command line's manners: help, exit codes, one message and no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from automl_pt.cli import COMMANDS, cli, main
from automl_pt.core.errors import InvalidDatasetError


def run(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `automl-pt` as a process of its own."""
    command = [sys.executable, "-m", "automl_pt", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env={**os.environ, **environment}, check=False
    )


def test_help_lists_every_command(runner: CliRunner) -> None:
    shown = runner.invoke(cli, ["--help"]).output
    assert all(f"  {name} " in shown for name in COMMANDS)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_each_command_has_help_that_begins_as_listed(runner: CliRunner, name: str) -> None:
    result = runner.invoke(cli, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("Usage: cli ")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["wibble"], 2, "No such command 'wibble'"),
        (["train", "--wibble"], 2, "No such option '--wibble'"),
        (["train"], 2, "dataset: required"),
        (["train", "x", "--epochs", "two"], 2, "'two' is not a valid int"),
        (["train", "digits", "--epochs", "0", "--lr", "0", "--patience", "0"], 2, "3 mistakes"),
        (["train", "digits", "--backbone", "resnet19"], 2, "did you mean 'resnet18'"),
        (["train", "digits", "--config", "absent.toml"], 2, "Folder or file not found: absent.toml"),
        (["search", "digits", "--lr", "1:low"], 2, "is not LOW:HIGH"),
        (["search", "digits", "--batch-size", "8,x"], 2, "is not a list of whole numbers"),
        (["search", "digits", "--lr", "1:0.1"], 2, "lr must go from low to high"),
    ],
)
def test_wrong_usage_is_one_message(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    shown = capsys.readouterr().err
    assert ended.value.code == code
    assert message in shown
    assert "Traceback" not in shown
    assert list(tmp_path.iterdir()) == []


def test_traceback_is_shown_on_request(tmp_path: Path) -> None:
    plain, detailed = (run("train", "absent", *extra, cwd=tmp_path) for extra in ([], ["--traceback"]))
    assert plain.returncode == 2
    assert "Traceback" not in plain.stderr
    assert "Traceback" in detailed.stderr


def test_each_error_brings_its_exit_code() -> None:
    assert InvalidDatasetError("a", given="b", remedy="c").exit_code == 1


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m automl_pt backbones | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
