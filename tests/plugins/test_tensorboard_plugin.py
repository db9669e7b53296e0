"""The TensorBoard plugin, installed for real, runs its own tests as its author does."""

from __future__ import annotations

from pathlib import Path

import pytest
from fresh_environment import ROOT, make_environment, own_tests

PLUGIN = ROOT / "plugins" / "automl-pt-tensorboard"


def test_its_own_tests_pass(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    assert "3 passed" in own_tests(make_environment(tmp_path / "environment", PLUGIN), PLUGIN, tmp_path)
