"""The doctor's findings, and broken installations explained, here and in every other command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from automl_pt.core import installation
from automl_pt.core.errors import InstallationError, PluginError
from automl_pt.core.installation import explain
from automl_pt.plugins.sources import FOLDER_VARIABLE
from automl_pt.reporting import machine as doctor
from automl_pt.reporting.machine import examine


def found(findings):
    return {finding.name: finding for finding in findings}


def test_every_part_is_reported():
    report = found(examine())
    names = {"Python", "torch", "torchvision", "CUDA", "device", "precision", "memory", "cores", "plugins"}
    assert names <= set(report)
    assert report["torch with torchvision"].value.startswith("work together")
    assert "13 backbones" not in report["plugins"].value
    assert not [finding for finding in report.values() if finding.problem and not finding.name.startswith("disk")]


def test_the_command_prints_lines_or_json(runner):
    from automl_pt.cli.doctor import command

    assert "--device auto is" in runner.invoke(command).output
    report = json.loads(runner.invoke(command, ["--json"]).output)
    assert {"name", "value", "problem"} == set(report[0])


def test_a_faulty_plugin_is_a_problem(tmp_path, monkeypatch, runner):
    (tmp_path / "faulty.py").write_text("import no_such_module")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    [finding] = [finding for finding in doctor.plugins(()) if finding.name == "plugin not loaded"]
    assert "faulty" in finding.value
    assert "No module named 'no_such_module'" in finding.problem
    [broken] = doctor.plugins([str(tmp_path / "absent.py")])
    assert broken.value == "broken"
    assert "plugin file not found" in broken.problem


@pytest.mark.parametrize(
    ("files", "limit"), [({"memory.max": "1024\n"}, 1024), ({"memory.max": "max\n"}, None), ({}, None)]
)
def test_the_memory_of_a_container(files, limit, tmp_path):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert doctor.memory_limit(tmp_path) == limit


def test_a_full_disk_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "LITTLE_DISK", 1 << 60)
    finding = doctor.disk("disk", tmp_path / "not" / "yet")
    assert "are free; a study's checkpoints may not fit" in finding.problem
    assert finding.value.endswith(str(tmp_path / "not" / "yet"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_a_problem(tmp_path, monkeypatch):
    tmp_path.chmod(0o500)
    monkeypatch.setenv("AUTOML_PT_CACHE", str(tmp_path))
    assert "choose another folder with AUTOML_PT_CACHE" in doctor.disk("cache", tmp_path).problem


def test_a_missing_package_is_a_problem(monkeypatch):
    monkeypatch.setattr(doctor, "PACKAGES", ("no-such-package",))
    [finding] = doctor.packages()
    assert (finding.value, finding.problem) == (
        "not installed",
        "`pip install .` in the checkout of automl-pt installs it",
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("operator torchvision::nms does not exist"), "builds that do not match"),
        (ImportError("/x/_C.so: undefined symbol: _ZN3c106detail"), "builds that do not match"),
        (OSError("libtorch_cuda.so: cannot open shared object file"), "builds that do not match"),
        (ModuleNotFoundError("No module named 'PIL'", name="PIL.Image"), "`pip install pillow`"),
        (ModuleNotFoundError("No module named 'pyarrow'", name="pyarrow"), "`pip install pyarrow`"),
        (RuntimeError("CUDA error: no kernel image is available for execution"), "--device cpu"),
        (RuntimeError("CUDA driver version is insufficient for CUDA runtime version"), "update the driver"),
    ],
)
def test_errors_that_mean_a_broken_installation(error, said):
    known = explain(error)
    assert isinstance(known, InstallationError)
    assert said in str(known)


def test_the_cause_is_looked_through():
    try:
        try:
            raise RuntimeError("operator torchvision::nms does not exist")
        except RuntimeError as error:
            raise PluginError("a rule", given="x", remedy="y") from error
    except PluginError as error:
        known = explain(error)
    assert known is not None
    assert explain(known) is known
    for words in ("torch ", "torchvision ", "operator torchvision::nms", "pip install --force-reinstall", "uv pip"):
        assert words in str(known)


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), RuntimeError("out of memory"), ModuleNotFoundError("No module named 'mine'", name="mine")],
)
def test_other_errors_are_not_explained_away(error):
    assert explain(error) is None


def test_the_torch_that_torchvision_was_built_for(monkeypatch):
    monkeypatch.setattr(installation, "requires", lambda name: ["numpy", "torch==2.9.1", "pillow (>=5)"])
    assert installation.torch_for_torchvision() == "2.9.1"
    assert "built for torch 2.9.1" in str(explain(RuntimeError("operator torchvision::nms does not exist")))


@pytest.fixture
def mismatch(tmp_path) -> dict[str, str]:
    """Return an environment in which importing torchvision fails as a build for another torch does.

    A stand-in raises the error; a real pair of builds that do not fit would be gigabytes to install.
    """
    package = tmp_path / "site" / "torchvision"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    path = os.pathsep.join([str(tmp_path / "site"), str(Path(__file__).parents[2])])
    return {**os.environ, "PYTHONPATH": path}


def test_the_doctor_explains_a_mismatch(mismatch, tmp_path):
    done = run("doctor", environment=mismatch, folder=tmp_path)
    assert done.returncode == 1
    assert "torch and torchvision are builds that do not match" in done.stdout
    assert "pip install --force-reinstall torch torchvision" in done.stdout


def test_another_command_explains_a_mismatch(mismatch, tmp_path):
    options = ("--epochs", "1", "--threads", "1", "--output", "run")
    done = run("train", "digits", *options, environment=mismatch, folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: torch and torchvision are builds that do not match"), done.stderr
    assert "Traceback" not in done.stderr


def run(*arguments: str, environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "automl_pt", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
