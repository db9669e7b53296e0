"""What docs/how-to/write-a-plugin.md says, performed line by line in a fresh environment."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "plugin_quickstart.py"


def script():
    specification = importlib.util.spec_from_file_location("plugin_quickstart", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_transcript_is_of_the_pages_lines():
    performed = [line[2:] for line in script().TARGET.read_text().splitlines() if line.startswith("$ ")]
    assert performed == script().steps()
    assert len(performed) > 5


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("uv") is None, reason="the page installs with uv")
def test_from_plugins_new_to_a_trained_epoch_in_five_minutes(tmp_path):
    transcript, seconds = script().perform(tmp_path)
    assert "keeps the contract" in transcript
    assert "1 passed" in transcript
    assert "ended: completed" in transcript
    assert seconds < 300
