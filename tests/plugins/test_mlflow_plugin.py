"""The MLflow plugin, installed for real, runs its own tests as its author does."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from fresh_environment import ROOT, make_environment, own_tests

PLUGIN = ROOT / "plugins" / "automl-pt-mlflow"


@pytest.mark.skipif(find_spec("mlflow") is None, reason="mlflow-skinny is not installed: 24 packages for one plugin")
def test_its_own_tests_pass(tmp_path: Path) -> None:
    python = make_environment(tmp_path / "environment", PLUGIN)
    # MLflow itself uses what SQLAlchemy calls deprecated
    assert "2 passed" in own_tests(python, PLUGIN, tmp_path, warnings="default")
