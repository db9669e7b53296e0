"""How results show themselves: one line each, tables, HTML with every text escaped, and Optuna's own study."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from automl_pt import load_model, read_study
from automl_pt.core.errors import InstallationError, StorageError, StudyError
from automl_pt.core.text import one_line, printable
from automl_pt.reporting.html.fragment import MOST_ROWS, facts, fragment, line, table
from automl_pt.study.records import ProbeRecord, StudyResult, TrialRecord
from automl_pt.study.views import Trials

HOSTILE = '<img src=x onerror="alert(1)">\n\x1b[31m\u202e' + "long" * 200

TEXT = st.text(max_size=60)


def trial(number: int, value: float | None = 0.5, **more: Any) -> TrialRecord:
    params = {"backbone": HOSTILE, "lr": 0.0123456, "state": "a setting"}
    losses = {1: 0.9, 2: 0.5} if value is not None else {}
    metrics = {"loss": 0.5, "accuracy": 0.75} if value is not None else {}
    state = "COMPLETE" if value is not None else "PRUNED"
    return TrialRecord(number, state, params, value, 2, 1.5, HOSTILE, losses, metrics=metrics, **more)


def study(directory: Path, **more: Any) -> StudyResult:
    trials = Trials([trial(0), trial(1, None)])
    given: dict[str, Any] = {"test": {"accuracy": 0.5}, "trials": trials, "best": trials[0], "model": None, **more}
    place = {"name": HOSTILE, "directory": str(directory), "storage": "sqlite:///s.db"}
    return StudyResult(**place, **given, runner_up=None, comparison=None, stopped="trials", seconds=1.0)


def test_each_is_one_short_line(tmp_path: Path) -> None:
    found = study(tmp_path)
    for one in (found, found.trials, found.trials[0], ProbeRecord(-1, HOSTILE)):
        assert len(repr(one)) < 400
        assert repr(one).isprintable()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(TEXT, TEXT | st.floats() | st.lists(TEXT, max_size=4) | st.none(), max_size=4))
def test_any_value_is_shown_on_one_printable_line(parts: dict[str, Any]) -> None:
    shown = one_line("Kind", parts)
    assert printable(shown) == shown
    assert len(shown) < 7 + 200 * len(parts) + 1


def test_a_trial_shows_its_settings_and_figures() -> None:
    shown = TrialRecord(3, "PRUNED", {"lr": 0.012345, "batch_size": 8}, None, 2, 1.5, "pruned", {})
    line = "TrialRecord(number=3, lr=0.01235, batch_size=8, state='PRUNED', epochs=2, seconds=1.5, reason='pruned')"
    assert repr(shown) == line


def test_the_trials_are_a_data_frame(tmp_path: Path) -> None:
    trials = study(tmp_path).trials
    frame = trials.to_frame()
    assert list(frame["number"]) == [0, 1]
    assert list(frame["param_state"]) == ["a setting"] * 2  # beside the trial's own state
    assert list(frame["state"]) == ["COMPLETE", "PRUNED"]
    assert frame["val_accuracy"][0] == 0.75
    assert frame.isna().loc[1, ["val_loss", "val_accuracy"]].all()
    assert trials == tuple(trials)
    assert "number" in Trials().to_frame().columns


def test_without_pandas_an_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InstallationError, match="`pip install pandas`"):
        study(tmp_path).trials.to_frame()


def test_the_html_escapes_every_text(tmp_path: Path) -> None:
    found = study(tmp_path)
    for html in (found._repr_html_(), found.trials._repr_html_(), fragment(facts({HOSTILE: HOSTILE}), line(HOSTILE))):
        assert "<img" not in html
        assert "\x1b" not in html
        assert "\u202e" not in html
    html = found._repr_html_()
    assert "long" * 100 not in html.split("<table>")[0]  # cut in the heading
    assert "75.0 %" in html
    assert html.count("<svg") == 1


def test_a_long_table_says_what_it_does_not_show() -> None:
    assert "and 5 more" in table(["n"], [[number] for number in range(MOST_ROWS + 5)])


def test_without_a_model_or_a_password_the_remedy_is_named(tmp_path: Path) -> None:
    found = study(tmp_path)
    with pytest.raises(StudyError, match="no trial kept weights"):
        found.load_model()
    with pytest.raises(StorageError, match="optuna.load_study"):
        _ = replace(found, storage="postgresql://me:***@host/db").study


def test_a_study_that_is_read_has_its_model_and_optunas_study(searched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(searched)
    found = read_study("hostile")
    assert len(found.study.trials) >= len(found.trials)
    assert found.study is found.study  # opened once
    plugins = [str(searched / "tiny_plugin.py")]
    model = found.load_model(plugins=plugins)
    assert sum(one.numel() for one in model.network.parameters()) > 0
    assert repr(model).isprintable()
    assert repr(load_model("hostile", plugins=plugins).info).startswith("ModelInfo(backbone=")
    assert "<script" not in found._repr_html_()
