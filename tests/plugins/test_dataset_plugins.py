"""The dataset plugins' own tests, run as their authors run them, but for the installation."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[2] / "plugins"


@pytest.mark.parametrize("name", ["automl-pt-synthetic", "automl-pt-webdataset"])
def test_its_own_tests_pass(name: str, tmp_path: Path) -> None:
    plugin = PLUGINS / name
    environment = {
        **os.environ,
        "AUTOML_PT_PLUGINS": str(plugin),
        "PYTHONPATH": os.pathsep.join([str(plugin), str(PLUGINS.parent)]),
    }
    options = ["-W", "error", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(plugin / "tests")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
