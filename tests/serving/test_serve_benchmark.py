"""The benchmark of the server runs, for a moment, and finds no error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import draw_image

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "serve.py"


@pytest.mark.slow
def test_a_short_run_has_no_error_and_flat_memory(tmp_path: Path) -> None:
    for index in range(4):
        draw_image(index % 3, index, 80).save(tmp_path / f"{index}.jpg")
    words = [sys.executable, str(SCRIPT), str(tmp_path), "--seconds", "3", "--dry"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["errors"] == []
    assert found["answers"] > 8
    assert found["milliseconds"]["p50"] <= found["milliseconds"]["p99"]
    assert found["memory_mib"]["last"] < 1.1 * found["memory_mib"]["first"]
