"""The plugin of EfficientNet-Lite, which brings real weights: its own tests, as its author runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1] / "plugins" / "automl-pt-lite" / "tests"


def test_its_own_tests_pass(tmp_path: Path) -> None:
    pytest.importorskip("automl_pt_lite", reason="the plugin automl-pt-lite is not installed")
    options = ["-W", "error", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(TESTS)]
    done = subprocess.run([sys.executable, "-m", "pytest", *options], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
