"""The script for the first day on a GPU, run on a CPU with tiny sizes, so that it works when there is a GPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu_day(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("GPU_DAY_DEVICE", "cpu")
    import gpu_day

    return gpu_day


def told(output: str) -> dict[str, Any]:
    lines = [json.loads(line)["told"] for line in output.splitlines() if line.startswith('{"told": ')]
    return {name: value for line in lines for name, value in line.items()}


def test_a_stage_is_a_line_of_json_with_card_and_versions_and_a_failing_one_stops_none(
    gpu_day: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "results" / "day.jsonl"
    monkeypatch.setattr(gpu_day, "PARTS", {"all": {"tests": 0.05, "machine": 60}})
    monkeypatch.setattr(sys, "argv", ["gpu_day.py", "all", "--device", "cpu", "--output", str(output)])
    assert gpu_day.main() == 1
    failed, machine = map(json.loads, output.read_text().splitlines())
    assert failed["status"] == "ended after its limit of 0.05 s"
    assert (machine["status"], machine["found"].keys()) == ("done", {"import_seconds", "torch", "cuda"})
    assert {"card", "driver", "mps", "versions", "commit", "device"} <= machine.keys()


def test_both_parts_together_take_less_than_eight_minutes(gpu_day: Any) -> None:
    assert sum(gpu_day.PARTS["all"].values()) <= 8 * 60
    assert set(gpu_day.CORRECT) | set(gpu_day.SPEED) == set(gpu_day.PARTS["all"])


def test_every_stage_runs_on_a_cpu(
    gpu_day: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import gpu_speed
    import gpu_stages

    monkeypatch.setenv("AUTOML_PT_CACHE", str(tmp_path))
    monkeypatch.setattr("automl_pt.core.out_of_memory.Recording.replaceable", False)
    for stage in gpu_day.PARTS["all"]:
        if stage != "machine":
            getattr(gpu_speed if stage in gpu_day.SPEED else gpu_stages, stage)()
    found = told(capsys.readouterr().out)
    judged = {name: value for name, value in found.items() if isinstance(value, dict) and "right" in value}
    assert len(judged) == 1 + 6 + 1 + 3
    assert all(value["right"] for value in judged.values()), judged
    assert {value["found"] for value in judged.values() if "at_most" in value} == {0.0}
    assert gpu_stages.WRONG == []
    assert found["states"] == ["COMPLETE", "COMPLETE"]
    assert (found["mps"], found["together"]["in turns"]["chosen"]) == ("no GPU", 1)
    assert {"images_per_second", "kept_on_the_device", "compiled", "profile", "share None"} <= found.keys()


def test_a_wrong_finding_is_told_and_kept(gpu_day: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import gpu_stages

    gpu_stages.judge("losses", 0.2, 0.05)
    gpu_stages.judge("notes", ["steps are not recorded"], [])
    gpu_stages.judge("weights", 0.0, 0.0)
    assert gpu_stages.WRONG == ["losses", "notes"]
    gpu_stages.WRONG.clear()
    assert told(capsys.readouterr().out)["losses"] == {"found": 0.2, "at_most": 0.05, "right": False}
