"""Figures in the terminal: every recorded metric has a column, the objective's is kept, and leads are said honestly."""

from __future__ import annotations

from pathlib import Path

import pytest

from automl_pt.builtin.validation_metrics import BY_NAME
from automl_pt.cli.search_lines import describe, lead_lines
from automl_pt.cli.tables import fitted, metric_columns
from automl_pt.reporting.accuracy import NO_TEST, NOT_TESTED, Accuracy, kept_metrics
from automl_pt.study.events import EpochDone, NewBest
from automl_pt.study.records import ModelComparison, TrialRecord
from automl_pt.training.result import EpochResult

FIGURES = (1, 0.9, 0.8, 0.75, None, 0.1, 1.0, 0.0, 0, 1.0, True)


def test_shares_are_per_cent_and_metrics_of_absent_plugins_are_the_recorded_numbers() -> None:
    rows = [{"loss": 0.8, "accuracy": 0.75, "macro_f1": 0.5, "cost_of_errors": 12.25}, {"loss": 0.7}]
    columns = metric_columns(rows, BY_NAME)
    assert [column.heading for column in columns] == ["accuracy", "macro F1", "cost of errors"]
    assert [list(column.cells) for column in columns] == [["75.0 %", "-"], ["50.0 %", "-"], ["12.2500", "-"]]


@pytest.mark.parametrize(("objective", "kept"), [("val_loss", []), ("macro_f1", ["macro F1"]), ("accuracy", [])])
def test_a_narrow_table_keeps_the_accuracy_and_the_objective(objective: str, kept: list[str]) -> None:
    rows = [{"accuracy": 0.75, "macro_f1": 0.5, "balanced_accuracy": 0.5}]
    table, dropped = fitted(metric_columns(rows, BY_NAME, objective), 19)
    assert [column.header for column in table.columns] == ["accuracy", *kept]
    assert "balanced accuracy" in dropped


def test_an_epoch_and_a_new_best_name_every_metric_and_the_objective() -> None:
    (line,) = describe(EpochDone(3, EpochResult(*FIGURES, metrics={"macro_f1": 0.5})))
    assert line == "trial 3 epoch 1: val loss 0.8000, val accuracy 75.0 %, val macro F1 50.0 %, 1.0 s"
    (line,) = describe(NewBest(3, 0.8, "model", chosen_by="macro_f1 0.5000"))
    assert line == "best so far: trial 3, val loss 0.8000, macro_f1 0.5000"


@pytest.mark.parametrize(
    ("difference", "is_tied", "said"),
    [
        (0.2, False, "clearly ahead of trial 1"),
        (0.01, True, "statistically tied with trial 1"),
        (-0.01, True, "statistically tied with trial 1"),
        (-0.2, False, "the loss of trial 1 is clearly lower"),
    ],
)
def test_a_lead_may_be_negative_where_the_loss_did_not_choose(difference: float, is_tied: bool, said: str) -> None:
    (line,) = lead_lines(ModelComparison(0, 1, difference, 0.05, 100, is_tied))
    assert line == f"lead:     {said} (difference in loss {difference:.4f} +- 0.0500 over 100 images)"


def test_an_accuracy_says_whether_there_is_a_test_split_and_whether_it_was_measured() -> None:
    assert Accuracy(0.9, 100).lines()[1].strip() == NO_TEST
    assert Accuracy(0.9, 100, test_images=50).lines()[1].strip() == NOT_TESTED
    assert Accuracy(0.9, 100, test_images=50, test=0.8).lines()[1].strip().startswith("80.0 % of 50 test images (95 %")
    gains = Accuracy(0.9, 100, default=0.85, probe=0.8).lines()[-1]
    assert (
        gains == "gain:     +5.0 points over the default settings (85.0 %), +10.0 points over the linear probe (80.0 %)"
    )


def test_a_trial_without_metrics_is_read_from_its_history_and_a_damaged_one_has_none(tmp_path: Path) -> None:
    trial = TrialRecord(0, "COMPLETE", {}, 0.8, 1, 1.0, "completed", {1: 0.8})
    assert kept_metrics(tmp_path, trial) == {}
    folder = tmp_path / "trials" / "0"
    folder.mkdir(parents=True)
    (folder / "history.jsonl").write_text("{}\n")
    assert kept_metrics(tmp_path, trial) == {}
