"""What is done after the trials runs where they ran: whatever ends or hangs it costs that step alone, and is named."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy_trial import HOSTILE

from automl_pt.api.search import steps
from automl_pt.config import SearchConfig
from automl_pt.core.errors import PluginError
from automl_pt.study import events
from automl_pt.study.records import StudyResult, TrialRecord

#: by step, what ends or hangs it, and what is said of it
FAULTS = {
    "compare": ("exit", r"the two best trials were not compared: {}: its process ended with exit code 0"),
    "test": ("system-exit", r"the test split was not measured: the test of the model .* failed: SystemExit\(0\)"),
    "ensemble": ("segv", r"ensemble: {}: its process was ended by SIGSEGV"),
    "report": ("hang", r"report.html was not written: {}: nothing within 5 seconds"),
}
LOST = r"the (comparison of trials|making of the|report) .*\(backbone resnet18\) did not return"


def search(directory: Path, dataset: str, stop: Any = lambda: None, **settings: Any) -> tuple[StudyResult, list[str]]:
    given: dict[str, Any] = {"epochs": 2, "trials": 2, "workers": 0, "pruner": "none", "ensemble": 2}
    config = SearchConfig(dataset=dataset, **{**given, **settings})
    told = list(steps(config, directory, objective=HOSTILE, stop=stop))
    assert isinstance(last := told[-1], events.Finished)
    return last.result, [event.text for event in told if isinstance(event, events.Notice)]


def earned(result: StudyResult) -> dict[str, Any]:
    """Return what each step gave, without the file's folder."""
    made = result.made.get("ensemble")
    return {"compare": result.comparison, "test": result.test, "ensemble": made, "report": result.report}


def test_what_ends_or_hangs_a_step_is_named_and_costs_no_trial_and_no_model(tmp_path: Path) -> None:
    dataset = ",".join(["after", *(f"{step}-{how}" for step, (how, _) in FAULTS.items())])
    result, notices = search(tmp_path / "toy", dataset, workers=1, trial_timeout=5)
    for _, said in FAULTS.values():
        assert re.search(said.format(LOST), "\n".join([*notices, *result.notes]))
    assert not any(earned(result).values())
    assert [trial.state for trial in result.trials] == ["COMPLETE"] * 2
    assert result.best is not None
    assert json.loads((tmp_path / "toy" / "model" / "model.json").read_text())["trial"] == result.best.number
    assert "ensemble: of 2 trials" in notices  # told before its end
    again, _ = search(tmp_path / "toy", "plain")
    # a comparison is made once; what was not made is made by the same command where it can be
    assert {name for name, found in earned(again).items() if found} == {"test", "ensemble", "report"}
    assert again.best == result.best


@pytest.mark.parametrize("step", FAULTS)
@pytest.mark.parametrize("how", ["raise", "system-exit"])
def test_in_this_process_a_fault_costs_that_step_alone(step: str, how: str, tmp_path: Path) -> None:
    result, notices = search(tmp_path / "toy", f"after,{step}-{how}")
    assert {name for name, found in earned(result).items() if not found} == {step}
    assert re.search(r"RuntimeError: boom|SystemExit\(0\)", "\n".join([*notices, *result.notes]))


def test_a_look_whether_the_search_is_flat_does_not_end_it(tmp_path: Path) -> None:
    given: dict[str, Any] = {"trials": 40, "epochs": 3, "stop_when_flat": True, "ensemble": None, "pruner": "rungs"}
    result, _ = search(tmp_path / "toy", "after,compare-raise", **given)
    assert len(result.trials) == 40
    said = r"the search could not be checked for a plateau: the comparison of .* failed: RuntimeError: boom"
    assert re.search(said, "\n".join(result.notes))


def test_an_interrupted_step_leaves_what_was_earned_and_is_done_by_the_same_command(tmp_path: Path) -> None:
    log, began = tmp_path / "toy" / "logs" / "worker-0.log", list[int]()

    def stop() -> int | None:
        if log.exists() and "until stopped" in log.read_text():
            began.append(2)
        return began[0] if began else None

    result, _ = search(tmp_path / "toy", "after,compare-until stopped", stop, workers=1)
    assert result.signal == 2
    assert result.best is not None
    assert not any(earned(result).values())
    assert "interrupted before the model was compared and tested; the same command does both" in result.notes
    again, _ = search(tmp_path / "toy", "plain")
    assert all(earned(again).values())
    assert again.best == result.best


def test_a_record_is_the_same_in_plain_values() -> None:
    record = TrialRecord(3, "COMPLETE", {"lr": 0.1}, 0.5, 2, 1.5, "completed", {1: 0.7, 2: 0.5}, {0.25: 0.9, 1: 0.7})
    assert TrialRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record
    assert TrialRecord.from_dict(replace(record, value=None).to_dict()).value is None


PLUGIN = """
import os
from automl_pt import Backbone, hookimpl

def build(num_classes, pretrained):
    print("goodbye\\x1b[2J", flush=True)
    os._exit(3)

@hookimpl
def register_backbones(): return [Backbone("acme/bad", build, image_size=16)]
"""


def test_a_backbone_that_cannot_even_be_tried_leaves_nothing_on_disk(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(PLUGIN)
    config = SearchConfig(
        dataset=str(tiny_folder), backbones=("acme/bad",), plugins=(str(tmp_path / "bad.py"),), workers=1
    )
    with pytest.raises(PluginError) as caught:
        list(steps(config, tmp_path / "studies" / "tiny"))
    assert caught.value.rule == "the network of acme/bad did not return"
    # all that is left of the log, which was removed with the rest
    assert caught.value.given == r"its process ended with exit code 3; it printed last: goodbye\x1b[2J"
    assert not (tmp_path / "studies").exists()
