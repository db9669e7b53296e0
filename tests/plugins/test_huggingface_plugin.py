"""The Hugging Face plugin's own tests, run as its author runs them, but for the installation."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parents[2] / "plugins" / "automl-pt-huggingface"


def test_its_own_tests_pass(tmp_path: Path) -> None:
    pytest.importorskip("datasets", reason="the package `datasets` is not installed")
    environment = {
        **os.environ,
        "AUTOML_PT_PLUGINS": str(PLUGIN),
        "PYTHONPATH": os.pathsep.join([str(PLUGIN), str(PLUGIN.parents[1])]),
        "HF_HOME": str(tmp_path / "home"),
    }
    options = ["-W", "error", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(PLUGIN / "tests")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert "12 passed" in done.stdout, done.stdout
