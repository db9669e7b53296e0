"""The Weights & Biases plugin, installed for real, runs its own tests as its author does, offline."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from fresh_environment import ROOT, make_environment, own_tests

PLUGIN = ROOT / "plugins" / "automl-pt-wandb"


@pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not installed: 15 packages for one plugin")
def test_its_own_tests_pass(tmp_path: Path) -> None:
    python = make_environment(tmp_path / "environment", PLUGIN)
    # W&B itself uses what others call deprecated
    assert "3 passed" in own_tests(python, PLUGIN, tmp_path, warnings="default")
