"""What to try next: each tip from what a study has recorded, with its reason, and none without one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from automl_pt.model.scoring import score
from automl_pt.plugins.manager import load_plugins
from automl_pt.reporting.html.formats import code
from automl_pt.reporting.sections import Section, missing
from automl_pt.reporting.sections.advice import advice_section
from automl_pt.reporting.sections.validation_results import judge
from automl_pt.reporting.study import StudyReport, read_study
from automl_pt.study.records import TrialRecord


def trial(
    number: int, lr: float, losses: tuple[float, ...] = (0.9, 0.5, 0.5), reason: str = "completed"
) -> TrialRecord:
    state = "COMPLETE" if reason == "completed" else "PRUNED"
    by_epoch = dict(enumerate(losses, start=1))
    return TrialRecord(number, state, {"lr": lr, "batch_size": 8}, min(losses), len(losses), 1.0, reason, by_epoch)


def study(folder: Path, *trials: TrialRecord, config: dict[str, Any] | None = None) -> StudyReport:
    best = min(trials, key=lambda one: one.value or 0.0, default=None)
    if best is not None and config is not None:
        place = folder / "trials" / str(best.number)
        place.mkdir(parents=True)
        (place / "run.json").write_text(json.dumps({"config": config}))
    end: dict[str, Any] = {"model": None, "comparison": None, "test": None, "stopped": "trials", "seconds": 1.0}
    head: dict[str, Any] = {"dataset": "photos", "backbones": ("tiny",), "storage": None, "settings": {}}
    return StudyReport("toy", str(folder), "finished", trials=trials, best=best, **head, **end)


SPREAD = (trial(0, 1e-3), trial(1, 1e-2, (0.9, 0.4, 0.4)), trial(2, 1e-1), trial(3, 1.0))


@pytest.mark.parametrize(
    ("trials", "config", "forecast", "what", "why"),
    [
        (SPREAD, {"pretrained": False}, {}, "Start from pretrained weights", "started from random weights"),
        (SPREAD, {"pretrained": True}, {}, None, ""),
        (SPREAD, {"weights": "own.safetensors"}, {}, None, ""),
        (SPREAD, None, {"now": 0.8, "twice": 0.85, "images": 400}, "about 800 for training", "to about 85 %"),
        (SPREAD, None, {"now": 0.8, "twice": 0.805, "images": 400}, None, ""),
        (SPREAD, None, {"now": 0.8, "twice": None, "images": 400}, None, ""),
        ((*SPREAD, trial(4, 1.0, (0.9, 0.3, 0.3))), None, {}, "`--lr 0.001:10`", "among the highest"),
        ((*SPREAD, trial(4, 1e-3, (0.9, 0.3, 0.3))), None, {}, "`--lr 0.0001:1`", "among the lowest"),
        ((trial(0, 0.1, (0.9, 0.5, 0.4)),), None, {}, "Train longer (`--epochs 6`)", "from 0.5000 to 0.4000"),
        ((trial(0, 0.1, (0.9, 0.5, 0.4), "pruned"),), None, {}, None, ""),
        (
            (*SPREAD, *(trial(n, 0.1, (0.9,), "diverged") for n in (4, 5))),
            None,
            {},
            "lower learning rates",
            "2 of 6 trials",
        ),
        ((trial(-1, 0.1, (0.1,)), *SPREAD), None, {}, "Fine-tune more gently", "none of 5 trials"),
    ],
)
def test_a_tip_has_its_reason(
    tmp_path: Path,
    trials: tuple[TrialRecord, ...],
    config: dict[str, Any] | None,
    forecast: Section,
    what: str | None,
    why: str,
) -> None:
    found = advice_section(study(tmp_path, *trials, config=config), missing("There is no model yet."), forecast)
    assert len(found["tips"]) == (what is not None)
    assert bool(found["note"]) == (what is None)
    for tip in found["tips"]:
        assert what is not None
        assert what in tip["what"]
        assert why in tip["why"]


def test_without_a_model_there_is_nothing_to_improve(tmp_path: Path) -> None:
    assert advice_section(study(tmp_path), missing("x"), {}) == {"missing": "There is no model yet to improve."}


@pytest.mark.parametrize(
    ("config", "is_told"), [({}, True), ({"class_weights": "balanced"}, False), ({"sampling": "balanced"}, False)]
)
def test_a_rare_class_that_is_missed_is_told(
    searched: Path, tmp_path: Path, config: dict[str, Any], is_told: bool
) -> None:
    plugins = load_plugins([str(searched / "tiny_plugin.py")])
    folder = Path(read_study(searched / "studies" / "hostile").model or "")
    judged = judge(folder, folder.parent / "manifest.json", plugins=plugins)
    classes = judged.model.classes
    labels = np.array([0] * 20 + [1] * 20 + [2] * 4)
    logits = np.eye(len(classes), dtype=np.float32)[np.where(labels == 2, 0, labels)] * 9
    pixels = replace(judged.pixels, labels=labels, names=[judged.pixels.names[0]] * len(labels))
    rare = replace(judged, pixels=pixels, probabilities=logits / 9, scores=score(logits, labels, classes))
    report = study(tmp_path, *SPREAD, config={"pretrained": True, **config})
    tips = [tip for tip in advice_section(report, rare, {})["tips"] if "--class-weights balanced" in tip["what"]]
    assert ["has 4 validation images and a recall of 0 %" in tip["why"] for tip in tips] == [True] * is_told


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("run `automl-pt report x`, then", "run <code>automl-pt report x</code>, then"),
        ("<b>`<i>`", "&lt;b&gt;<code>&lt;i&gt;</code>"),
        ("one ` alone", "one ` alone"),
        ("", ""),
    ],
)
def test_backticks_are_code_and_the_rest_is_text(text: str, html: str) -> None:
    assert code(text) == html
