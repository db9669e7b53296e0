"""The table of metrics: values against another implementation, and every place where an added metric shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sklearn.metrics import balanced_accuracy_score, f1_score
from tiny_runs import PLUGIN, write_plugin

from automl_pt import Metric
from automl_pt.api.search import steps
from automl_pt.builtin.validation_metrics import BY_NAME, METRICS
from automl_pt.cli import cli
from automl_pt.config import SearchConfig
from automl_pt.core.errors import PluginError
from automl_pt.core.files import sha256_file
from automl_pt.model.scoring import score
from automl_pt.plugins.manager import load_plugins
from automl_pt.runs import run
from automl_pt.runs.directory import history
from automl_pt.runs.reproduce import Reproduction
from automl_pt.study.events import EpochDone
from automl_pt.testing import check_metric
from automl_pt.testing.metrics import cases
from automl_pt.training.evaluation import measure, predictions
from automl_pt.training.result import EpochResult

#: a metric, and a tracker that prints what it is told
ADDED = (
    PLUGIN
    + """
from automl_pt import Metric

@hookimpl
def register_metrics():
    return [Metric("error_rate", lambda found: (found.ranks > 0).double().mean().item(), "error rate", "min")]

@hookimpl
def epoch_finished(event):
    print("told", event.figures["val_error_rate"], event.figures["val_macro_f1"])
"""
)
#: the metrics that a result of three classes holds beside loss and accuracy
FURTHER = tuple(metric.name for metric in METRICS if metric.name not in ("loss", "accuracy", "top5"))
PLAIN: dict[str, Any] = {"backbone": "plain", "epochs": 2, "batch_size": 4, "lr": 0.01, "threads": 1, "device": "cpu"}


@pytest.fixture
def added(tmp_path: Path) -> str:
    path = tmp_path / "added.py"
    path.write_text(ADDED)
    return str(path)


def random_scores(classes: int, images: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(classes)
    labels = torch.randint(max(2, classes - 1), (images,), generator=generator)  # of three or more one has no images
    return torch.randn(images, classes, generator=generator), labels


@pytest.mark.parametrize("classes", [2, 3, 7, 300])
@pytest.mark.filterwarnings("ignore:y_pred contains classes")
def test_values_are_those_of_other_implementations(classes: int) -> None:
    logits, labels = random_scores(classes)
    values, failures = measure(METRICS, predictions(logits, labels))
    scored, predicted = score(logits.numpy(), labels.numpy(), [str(n) for n in range(classes)]), logits.argmax(1)
    present = np.unique(labels)
    assert failures == {}
    assert values["loss"] == pytest.approx(scored.loss)
    assert values["accuracy"] == scored.accuracy
    assert values.get("top5") == scored.top5
    assert values["macro_f1"] == pytest.approx(scored.macro["f1"])
    assert values["macro_f1"] == pytest.approx(f1_score(labels, predicted, labels=present, average="macro"))
    assert values["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted))


def test_the_confusion_counts_every_image_with_finite_scores_once() -> None:
    for case, found in cases().items():
        confusion = found.confusion()
        assert torch.equal(confusion.diagonal(), found.correct), case
        assert torch.equal(confusion.sum(0), found.predicted_counts), case
        unplaced = int((found.predicted == found.classes).sum())
        assert confusion.sum() == len(found.labels) - unplaced, case
        assert (unplaced > 0) == (case == "scores that are not finite")


@pytest.mark.parametrize(
    ("compute", "given", "broken"),
    [
        (lambda found: 1 / 0, {}, "takes any predictions"),
        (lambda found: "0.5", {}, "returns a finite number or None"),
        (lambda found: float("inf"), {}, "returns a finite number or None"),
        (lambda found: found.labels.mul_(0).sum().item(), {"format": "number"}, "does not change the predictions"),
        (lambda found: torch.rand(()).item(), {}, "does not draw random numbers"),
        (lambda found: float(found.labels[0]), {"format": "number"}, "does not depend on the order"),
        (lambda found: 2.0, {}, "lies between 0 and 1"),
        (BY_NAME["accuracy"].compute, {"direction": "min"}, "is better for perfect predictions"),
    ],
)
def test_a_metric_that_breaks_the_contract_is_told_how(compute: Any, given: dict[str, Any], broken: str) -> None:
    with pytest.raises(PluginError, match=f"the metric mine {broken}"):
        check_metric(Metric("mine", compute, **given))


@pytest.mark.parametrize(("name", "given"), [("Macro F1", {}), ("mine", {"direction": "up"})])
def test_a_metric_has_a_plain_name_and_a_direction(name: str, given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a metric's name has|is max or min"):
        Metric(name, BY_NAME["accuracy"].compute, **given)


def test_an_added_metric_shows_wherever_a_run_is_told(
    tiny_folder: Path, tmp_path: Path, added: str, runner: CliRunner
) -> None:
    output = tmp_path / "out"
    words = [word for name, value in PLAIN.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    shown = runner.invoke(
        cli, ["train", str(tiny_folder), "-o", str(output), "--plugin", added, "--tracker", "added", *words]
    )
    assert shown.exit_code == 0, shown.output
    first, last = history(output)
    rate, f1 = last.metrics["error_rate"], last.metrics["macro_f1"]
    assert rate == pytest.approx(1 - last.val_accuracy)
    assert f"val macro F1 {BY_NAME['macro_f1'].text(f1)}, val balanced accuracy" in shown.stdout  # the line of an epoch
    assert f", val error rate {100 * rate:.1f} %" in shown.stdout
    assert f"told {rate} {f1}" in shown.stdout  # a tracker
    lines = [json.loads(line) for line in (output / "history.jsonl").read_text().splitlines()]
    assert [line["val_error_rate"] for line in lines] == [first.metrics["error_rate"], rate]
    card = (output / "README.md").read_text()
    assert "val_macro_f1: " in card
    assert "val_error_rate: " in card
    report = runner.invoke(cli, ["report", str(output), "--plugin", added])
    assert "error rate" in report.stdout
    assert f"val macro F1 {BY_NAME['macro_f1'].text(f1)}" in report.stdout
    page, whole = (
        tmp_path / "page.html",
        ["report", str(output), "--plugin", added, "--html", str(tmp_path / "page.html")],
    )
    found = json.loads(runner.invoke(cli, [*whole, "--json"]).stdout)
    assert found["epochs"][1]["val_error_rate"] == rate
    assert '<th scope="col">error rate</th>' in page.read_text()
    assert f">{100 * rate:.1f}\N{NO-BREAK SPACE}%</td>" in page.read_text()


def test_an_added_metric_shows_wherever_a_search_is_told(
    tiny_folder: Path, tmp_path: Path, added: str, runner: CliRunner
) -> None:
    config = SearchConfig(
        **{"dataset": str(tiny_folder), "backbones": ("plain",), "plugins": (added,), "epochs": 2, "trials": 2},
        **{"batch_sizes": (4,), "lr": (0.01, 0.1), "threads": 1, "workers": 0, "device": "cpu", "pruner": "none"},
        report=False,
    )
    events = list(steps(config, tmp_path / "study"))
    done = [event.result for event in events if isinstance(event, EpochDone)]
    assert all({"macro_f1", "error_rate"} <= result.metrics.keys() for result in done)
    report = runner.invoke(cli, ["report", str(tmp_path / "study"), "--json"])
    trials, sections = (json.loads(report.stdout)[name] for name in ("trials", "sections"))
    labels = [metric["label"] for metric in sections["trials"]["metrics"]]  # the page's columns
    assert labels == ["accuracy", *(BY_NAME[name].label for name in FURTHER), "error rate"]
    kept = {trial["number"]: trial["metrics"]["error_rate"] for trial in trials}
    for number, value in kept.items():
        best = [one for one in history(tmp_path / "study" / "trials" / str(number)) if one.is_best][-1]
        assert value == best.metrics["error_rate"]
    assert "macro F1" in " ".join(
        runner.invoke(cli, ["report", str(tmp_path / "study")], env={"COLUMNS": "200"}).stdout.split()
    )


def test_a_metric_that_fails_costs_no_epoch_and_is_told_once(tiny_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "added.py"
    path.write_text(ADDED.replace("(found.ranks > 0)", "(found.nothing > 0)"))
    results = list(run.train(str(tiny_folder), output=tmp_path / "out", plugins=str(path), **PLAIN))
    assert [sorted(result.metrics) for result in results] == [sorted(FURTHER)] * 2
    told = [note for result in results for note in result.notes if "error_rate" in note]
    assert len(told) == 1
    assert "is not recorded, because it failed: AttributeError" in told[0]


def without_metrics(path: Path) -> None:
    """Turn a history into one of a version that had only loss and accuracy."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        for name in FURTHER:
            del line[f"val_{name}"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_run_from_before_a_metric_reports_reproduces_and_compares(
    tiny_folder: Path, tmp_path: Path, runner: CliRunner
) -> None:
    plugin, output = str(write_plugin(tmp_path)), tmp_path / "out"
    list(run.train(str(tiny_folder), output=output, plugins=plugin, **PLAIN))
    without_metrics(output / "history.jsonl")
    assert [result.metrics for result in history(output)] == [{}, {}]
    report = runner.invoke(cli, ["report", str(output)])
    assert report.exit_code == 0, report.output
    assert "macro F1" not in report.stdout
    again = Reproduction(output, plugins=load_plugins([plugin]))
    list(again.run(tmp_path / "again"))
    compared = again.compare(tmp_path / "again")
    assert compared.same, compared.differences
    assert history(tmp_path / "again")[0].metrics  # the new run has them


def test_a_run_from_before_a_metric_resumes_bit_for_bit(tiny_folder: Path, tmp_path: Path) -> None:
    plugin, output, whole = str(write_plugin(tmp_path)), tmp_path / "out", tmp_path / "whole"
    list(run.train(str(tiny_folder), output=whole, plugins=plugin, **PLAIN))
    results = run.train(str(tiny_folder), output=output, plugins=plugin, **PLAIN)
    next(results)
    results.close()  # type: ignore[attr-defined] # a generator
    record = next((output / "checkpoints").glob("last-*.pt"))
    state = torch.load(record, weights_only=True)
    for line in state["progress"]["history"]:
        for name in FURTHER:
            del line[f"val_{name}"]
    torch.save(state, record)
    entries = json.loads((output / "checkpoints" / "last.json").read_text())
    entries[0]["sha256"] = sha256_file(record)
    (output / "checkpoints" / "last.json").write_text(json.dumps(entries))
    without_metrics(output / "history.jsonl")
    rest = list(run.train(str(tiny_folder), output=output, plugins=plugin, **PLAIN))
    assert [result.epoch for result in rest] == [2]
    assert [bool(result.metrics) for result in history(output)] == [False, True]
    ours, theirs = history(output), history(whole)
    assert [result.val_loss for result in ours] == [result.val_loss for result in theirs]
    assert ours[1].metrics == theirs[1].metrics


def test_a_metric_of_a_plugin_that_is_gone_is_shown_by_its_name(
    tiny_folder: Path, tmp_path: Path, added: str, runner: CliRunner
) -> None:
    list(run.train(str(tiny_folder), output=tmp_path / "out", plugins=added, **{**PLAIN, "epochs": 1}))
    shown = runner.invoke(cli, ["report", str(tmp_path / "out")], env={"COLUMNS": "200"})
    assert "val error rate" in " ".join(shown.stdout.split())


@pytest.mark.parametrize("entry", [{"val_macro_f1": "high"}, {"val_macro_f1": True}, {"something": 1.0}])
def test_a_damaged_record_of_a_metric_is_refused(entry: dict[str, Any]) -> None:
    figures = (1, 0.5, 0.5, 0.5, None, 0.1, 1.0, 0.0, 0, 1.0, True)
    plain = EpochResult(*figures, metrics={"macro_f1": 0.5}, ema_metrics={"macro_f1": 0.6}).to_dict()
    assert EpochResult.from_dict(plain).ema_metrics == {"macro_f1": 0.6}
    with pytest.raises(ValueError, match=r"not a number|not what an epoch's record holds"):
        EpochResult.from_dict({**plain, **entry})
