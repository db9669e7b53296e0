"""The report at the end of a search: written in time or not at all, and never at the search's cost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy_trial import TOY

from automl_pt.api.search import steps
from automl_pt.cli.search_lines import result_lines
from automl_pt.config import SearchConfig
from automl_pt.core.errors import OutputError
from automl_pt.core.files import atomic_write
from automl_pt.plugins.manager import Plugins
from automl_pt.reporting.study import read_study
from automl_pt.study.budget import Budget
from automl_pt.study.events import Finished
from automl_pt.study.executor.base import Caller
from automl_pt.study.executor.calls import failed
from automl_pt.study.records import StudyResult
from automl_pt.study.session import REPORT_SECONDS


def page(config: SearchConfig, directory: Path, plugins: Plugins | None, caller: Caller) -> Path:
    found = read_study(directory, ours=True)
    atomic_write(directory / "report.html", found.status)
    return directory / "report.html"


NO_SPACE = OutputError("the output cannot be written", given="report.html: No space left on device", remedy="free some")


BROKEN = failed("the report (backbone resnet18)", "ZeroDivisionError: a plot went wrong")


def full_disk(config: SearchConfig, directory: Path, plugins: Plugins | None, caller: Caller) -> Path:
    raise NO_SPACE


def broken(config: SearchConfig, directory: Path, plugins: Plugins | None, caller: Caller) -> Path:
    raise ZeroDivisionError("a plot went wrong")


def search(directory: Path, make: Any, *, stop: Any = lambda: None, **settings: Any) -> StudyResult:
    config = SearchConfig(dataset="plain", **{"trials": 2, "epochs": 2, "workers": 0, **settings})
    *_, last = steps(config, directory, objective=replace(TOY, report=make), stop=stop)
    assert isinstance(last, Finished)
    return last.result


def test_the_page_is_written_of_the_ended_study(tmp_path: Path) -> None:
    result = search(tmp_path, page)
    assert result.report == str(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == "finished"
    assert f"page:     {tmp_path / 'report.html'} (open it in a browser)" in result_lines(Finished(result))


@pytest.mark.parametrize(
    ("make", "note"),
    [
        (full_disk, f"report.html was not written: {NO_SPACE.in_a_line()}"),
        (broken, f"report.html was not written: {BROKEN.in_a_line()}"),
    ],
)
def test_a_failure_is_a_note_and_costs_nothing_else(tmp_path: Path, make: Any, note: str) -> None:
    result = search(tmp_path, make)
    assert (result.stopped, result.report, result.notes) == ("trials", None, (note,))
    assert result.best is not None
    assert f"note: {note}" in result_lines(Finished(result))
    assert json.loads((tmp_path / "result.json").read_text())["best"]["number"] == result.best.number


def test_the_end_says_what_to_do_next_and_no_developers_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = replace(search(tmp_path / "studies" / "toy", page), estimate_error=-0.41)
    lines = result_lines(Finished(result))
    assert "next:     automl-pt predict studies/toy/model IMAGES" in lines
    assert "          automl-pt report toy" in lines
    assert "page:     studies/toy/report.html (open it in a browser)" in lines
    assert not any("41 %" in line or str(tmp_path) in line for line in lines)
    stopped = result_lines(Finished(replace(result, signal=2)))
    assert "stopped:  everything finished so far is kept; run the same command to continue" in stopped
    assert not any(line.startswith("next") for line in stopped)


def test_a_runner_up_that_is_not_compared_is_told_all_the_same(tmp_path: Path) -> None:
    result = search(tmp_path, page)
    assert result.comparison is not None
    assert not any(line.startswith("runner-up") for line in result_lines(Finished(result)))
    second = replace(result.trials[1], number=3, reason="pruned", epochs=1, value=0.5)
    lines = result_lines(Finished(replace(result, comparison=None, runner_up=second)))
    assert "runner-up: trial 3, pruned after 1 epoch, val loss 0.5000; not compared image by image" in lines


def test_no_page_is_written_where_none_is_asked_for_or_a_signal_came(tmp_path: Path) -> None:
    assert search(tmp_path / "without", broken, report=False).notes == ()
    assert search(tmp_path / "stopped", broken, stop=lambda: 2).notes == ()


def test_a_search_without_time_left_says_how_to_get_the_page(tmp_path: Path) -> None:
    result = search(tmp_path, page, timeout=REPORT_SECONDS - 1)
    assert result.report is None
    assert result.notes[-1].startswith("no time remained for report.html; `automl-pt report ")


def test_the_page_has_its_share_of_a_timeout() -> None:
    budget = Budget(100.0, clock=lambda: 0.0)
    before = budget.left()
    budget.report = REPORT_SECONDS
    assert budget.left() == before - REPORT_SECONDS
    budget.count(3.0)
    assert budget.busy == 3.0


def test_what_a_search_was_asked_is_kept_without_a_password(tmp_path: Path) -> None:
    search(tmp_path, page, seed=7)
    asked = json.loads((tmp_path / "study.json").read_text())["asked"]
    assert (asked["dataset"], asked["trials"], asked["seed"]) == ("plain", 2, 7)
    assert "storage" not in asked
    assert json.loads((tmp_path / "result.json").read_text())["slots"] == 1
