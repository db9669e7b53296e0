"""The example distribution, installed for real into a fresh environment, found and trained there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "plugins" / "automl-pt-example"


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """Return the Python of a fresh environment that sees this one's packages and has the example installed."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    scripts = "Scripts" if os.name == "nt" else "bin"
    fresh = folder / scripts / "python"
    site = subprocess.run(
        [fresh, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    lines = [f"import site; site.addsitedir({path!r})" for path in (sysconfig.get_path("purelib"), str(ROOT))]
    Path(site, "packages_of_the_test_run.pth").write_text("\n".join(lines))
    source = shutil.copytree(EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
    # automl-pt itself is here already, and on no index that a plugin's author could install it from
    subprocess.run([*installer(fresh), "--no-deps", str(source)], check=True, capture_output=True)
    return fresh


def installer(python: Path) -> list[str]:
    """Return the command that installs into the environment of `python`: uv's, or pip's where there is no uv."""
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--python", str(python)]
    return [sys.executable, "-m", "pip", "--python", str(python), "install"]


def automl(python: Path, *arguments: str, folder: Path) -> str:
    done = subprocess.run([python, "-m", "automl_pt", *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_its_backbone_and_dataset_are_found(python, tmp_path):
    [plugin] = [p for p in json.loads(automl(python, "plugins", "--json", folder=tmp_path)) if p["name"] == "example"]
    assert plugin == {
        "name": "example",
        "version": "0.1.0",
        "origin": "automl-pt-example",
        "hooks": ["epoch_finished", "register_backbones", "register_datasets"],
    }
    assert "example/tiny" in automl(python, "backbones", "example", folder=tmp_path)
    assert "example/stripes" in automl(python, "datasets", folder=tmp_path)


def test_its_own_tests_pass(python, tmp_path):
    tests = shutil.copytree(EXAMPLE / "tests", tmp_path / "tests")
    done = subprocess.run([python, "-m", "pytest", "-q", tests], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


def test_it_trains_and_predicts(python, tmp_path):
    options = ("--backbone", "example/tiny", "--epochs", "2", "--batch-size", "8", "--lr", "0.1", "--threads", "1")
    automl(python, "train", "example/stripes", *options, "--output", "run", folder=tmp_path)
    code = (
        "import numpy as np; from automl_pt import load_model\n"
        "model = load_model('run'); print(model.predict([np.zeros((16, 16), np.uint8)]).shape)"
    )
    done = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "(1, 2)", done.stderr
