"""The HTML report of a real, tiny search over images whose names are hostile."""

from __future__ import annotations

import json
import shutil
import tomllib
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hostile import CLASSES
from tiny_runs import write_plugin
from toy_trial import TOY

from automl_pt.api.search import steps
from automl_pt.cli.report import command as report
from automl_pt.config import SearchConfig
from automl_pt.core.errors import StudyError, UsageError
from automl_pt.core.locks import locked
from automl_pt.core.text import printable
from automl_pt.plugins.manager import load_plugins
from automl_pt.reporting.html.marked import MARK
from automl_pt.reporting.html.page import render
from automl_pt.reporting.run import RunReport
from automl_pt.reporting.sections import Content
from automl_pt.reporting.sections.repeat import run_repeat
from automl_pt.reporting.sections.space import importance
from automl_pt.reporting.sections.write import read_content
from automl_pt.study.records import TrialRecord

SECTIONS = (
    *("answer", "advice", "forecast", "trials", "curves", "space", "classes", "confusion", "mistakes", "saliency"),
    *("calibration", "check", "time", "repeat"),
)


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(autouse=True)
def named_plugin(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the plugin of the studies here: those that a study names itself are not loaded."""
    monkeypatch.setenv("AUTOML_PT_PLUGINS", str(write_plugin(tmp_path_factory.mktemp("plugins")).parent))


@pytest.fixture(scope="module")
def content(searched: Path) -> Content:
    plugins = load_plugins([str(searched / "tiny_plugin.py")])
    return read_content(searched / "studies" / "hostile", plugins=plugins)[1]


@pytest.fixture
def study(tmp_path: Path, searched: Path) -> Path:
    return Path(shutil.copytree(searched / "studies" / "hostile", tmp_path / "hostile"))


def test_a_search_ends_with_its_page(searched: Path) -> None:
    page = Page((searched / "studies" / "hostile" / "report.html").read_text())
    ids = [attributes["id"] for tag, attributes in page.elements if tag == "section"]
    assert ids == list(SECTIONS)
    assert "finished (all trials were run); 10 trials" in page.text  # the rival is one


def test_every_section_of_a_finished_study_is_there(content: Content) -> None:
    assert [name for name in SECTIONS if "missing" in content.values[name]] == ["forecast"]  # it has no probe
    assert len(content.values["answer"]["sentences"]) == 4
    assert "missing" not in content.values["space"]["importance"]


def test_the_page_needs_nothing_else_and_runs_nothing(content: Content) -> None:
    page = Page(render(content.values, content.pictures))
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "iframe", "object", "embed", "link", "base", "form"}
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/"))
    policy = next(attributes["content"] for tag, attributes in page.elements if attributes.get("http-equiv"))
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_names_are_shown_as_text(content: Content) -> None:
    html = render(content.values, content.pictures)
    page = Page(html)
    for name in CLASSES:
        assert printable(name.replace("/", "\u2215")) in page.text
    assert "onload=alert(3)> $\\frac{ {%x%} \\u202e" in page.text
    assert "\u202e" not in html
    assert "\x1b" not in html
    # plots are drawn without names, so that nothing in them can be taken for mathematics
    assert "svg onload" not in html.replace("&lt;svg onload", "")


def test_the_page_shows_nothing_that_json_has_not(searched: Path, content: Content, runner: CliRunner) -> None:
    done = runner.invoke(report, [str(searched / "studies" / "hostile"), "--json"], standalone_mode=False)
    values = json.loads(done.stdout)["sections"]
    again = {**values, "written": content.values["written"]}
    assert render(again, content.pictures) == render(content.values, content.pictures)
    assert set(content.values) == set(values)


def test_html_is_written_where_it_is_asked_for(searched: Path, tmp_path: Path, runner: CliRunner) -> None:
    target = tmp_path / "new" / "report.html"
    done = runner.invoke(report, [str(searched / "studies" / "hostile"), "--html", str(target)], standalone_mode=False)
    assert f"{target}: open it in a browser" in done.stdout
    assert target.read_text().startswith("<!doctype html>")


def test_only_a_page_of_ours_is_replaced_unasked(searched: Path, tmp_path: Path, runner: CliRunner) -> None:
    target = tmp_path / "report.html"
    words = [str(searched / "studies" / "hostile"), "--html", str(target)]
    target.write_text("<!doctype html><title>mine</title>")
    done = runner.invoke(report, words, standalone_mode=False)
    assert isinstance(done.exception, UsageError)
    assert done.exception.rule == "the output file exists, and automl-pt did not write it"
    assert done.exception.given == f"{target} is there already"
    assert done.exception.remedy == "choose another name, or give --force"
    assert target.read_text() == "<!doctype html><title>mine</title>"
    for options in (["--force"], []):
        assert runner.invoke(report, [*words, *options], standalone_mode=False).exception is None
        assert MARK in target.read_text()


def test_the_figures_are_those_of_the_run(content: Content) -> None:
    values = content.values
    best = next(row for row in values["trials"]["rows"] if row["best"])
    assert values["classes"]["loss"] == pytest.approx(best["loss"], rel=1e-5)
    assert values["classes"]["images"] == 30
    assert sum(map(sum, values["confusion"]["counts"])) == 30
    wrong = 30 - sum(row[index] for index, row in enumerate(values["confusion"]["counts"]))
    assert values["mistakes"]["count"] == wrong > 0
    assert sum(pair["images"] for pair in values["confusion"]["pairs"]) == wrong
    assert sum(one["images"] for one in values["calibration"]["bins"]) == 30


def test_the_page_says_whose_probabilities_it_shows(content: Content, run: Path) -> None:
    said = content.values["calibration"]["note"]
    assert "No temperature is kept with the model, so that these are its own probabilities" in said
    weights = json.loads((run / "model.json").read_text())["weights"]["sha256"]
    found = {"temperature": 2.0, "weights": weights, "images": 30, "data": "d", "loss": [1.0, 0.9], "ece": [0.2, 0.1]}
    (run / "temperature.json").write_text(json.dumps({"format": 1, **found}))
    values = read_content(run)[1].values
    assert "The model's temperature of 2 is applied; it may have been chosen on these" in values["calibration"]["note"]
    assert " at its temperature of 2; the epoch was chosen" in values["answer"]["sentences"][1]


def test_the_settings_to_repeat_it_are_toml_whatever_the_names() -> None:
    name = "\N{GRINNING FACE} 'a' \"b\"\n\x1f\u202e/é"
    lines = run_repeat(RunReport("run", "completed", {"config": {"dataset": name, "lr": 1e-05}}, ())).get("commands")
    assert tomllib.loads("\n".join(printable(line) for line in lines[0]["lines"])) == {"dataset": name, "lr": 1e-05}


def test_time_is_told_by_its_parts(content: Content) -> None:
    parts = {part["name"]: part["seconds"] for part in content.values["time"]["parts"]}
    assert set(parts) == {"training", "validation", "saving", "waiting for data", "comparing, starting, idle"}
    assert all(seconds > 0 for seconds in parts.values())
    assert sum(part["share"] for part in content.values["time"]["parts"]) == pytest.approx(1)


def test_pruned_trials_show_what_they_were_ranked_by(content: Content) -> None:
    pruned = [row for row in content.values["trials"]["rows"] if row["state"] == "PRUNED"]
    assert pruned
    assert all(row["rank_loss"] is not None and row["ranked_at"] < 1 for row in pruned)
    assert all(row["reason"].startswith("pruned: others were better") for row in pruned)
    curves = {curve["number"]: curve for curve in content.values["curves"]["curves"]}
    assert all(curves[row["number"]]["ranks"] for row in pruned)


def damaged_model(study: Path) -> None:
    (study / "model" / "model.json").write_text("{")


def no_model(study: Path) -> None:
    shutil.rmtree(study / "model")


def damaged_manifest(study: Path) -> None:
    (study / "manifest.json").write_text("[]")


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (damaged_model, "The model could not be run on the validation images. The model directory is incomplete"),
        (no_model, "There is no model yet."),
        (damaged_manifest, "The study's manifest is damaged"),
    ],
)
def test_what_is_damaged_is_said_in_place_of_the_section(study: Path, break_it: Any, said: str) -> None:
    break_it(study)
    content = read_content(study)[1]
    for name in ("classes", "confusion", "mistakes", "saliency", "calibration", "check"):
        assert said in content.values[name]["missing"]
    assert said in Page(render(content.values, content.pictures)).text
    assert "missing" not in content.values["trials"]


def test_data_that_vanished_are_said_to_be_gone(study: Path, searched: Path) -> None:
    moved = searched / "moved"
    (searched / "images").rename(moved)
    try:
        content = read_content(study)[1]
    finally:
        moved.rename(searched / "images")
    assert "Folder or file not found" in content.values["classes"]["missing"]
    assert "trial" in content.values["answer"]["sentences"][0]
    assert "Folder or file not found" in Page(render(content.values, content.pictures)).text


def test_damaged_histories_are_left_out_and_named(study: Path) -> None:
    first, *others = sorted(study.glob("trials/*/history.jsonl"))
    number = first.parent.name
    first.write_text("junk\n")
    assert (
        f"Not included, because their records are damaged: trial {number}."
        in read_content(study)[1].values["time"]["note"]
    )
    for path in others:
        path.write_text("junk\n")
    assert (
        f"No trial has written the record of an epoch; damaged: trial {number}"
        in (read_content(study)[1].values["time"]["missing"])
    )


def test_a_damaged_result_costs_no_more_than_it_tells(study: Path, runner: CliRunner) -> None:
    (study / "result.json").write_text("junk")
    done = runner.invoke(report, [str(study), "--html", "x.html"], standalone_mode=False)
    assert "result.json" in str(done.exception)


@pytest.mark.parametrize(
    ("dataset", "trials", "said"),
    [
        ("plain", 1, "No second complete trial"),
        ("diverge-0", 1, "No trial has kept a model so far"),
        ("fail-0", 1, "All 1 trial failed, so that there is no model."),
    ],
)
def test_studies_with_little_in_them_have_a_page(tmp_path: Path, dataset: str, trials: int, said: str) -> None:
    config = SearchConfig(dataset=dataset, epochs=3, trials=trials, workers=0, patience=1)
    with suppress(StudyError):  # of the study whose trials all fail
        list(steps(config, tmp_path / "toy", objective=TOY))
    content = read_content(tmp_path / "toy")[1]
    assert said in " ".join(content.values["answer"]["sentences"])
    assert said in Page(render(content.values, content.pictures)).text


def test_a_study_under_way_says_so(study: Path) -> None:
    (study / ".lock").touch()
    with locked(study / ".lock"):
        content = read_content(study)[1]
    assert content.values["state"].startswith("running")
    assert content.values["answer"]["sentences"][0].startswith("So far the best model is tiny")


def test_a_study_not_started_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text('dataset = "digits"\n')
    content = read_content(tmp_path)[1]
    assert "This search has not been started." in Page(render(content.values, content.pictures)).text
    assert all("missing" in content.values[name] for name in SECTIONS if name != "answer")


@pytest.fixture
def run(searched: Path, tmp_path: Path) -> Path:
    """Return the run directory of the study's first trial, as a run of its own."""
    study = searched / "studies" / "hostile"
    best = next(path.parent for path in sorted(study.glob("trials/*/model.json")))
    folder = Path(shutil.copytree(best, tmp_path / "run"))
    shutil.copy(study / "manifest.json", folder)
    return folder


def test_a_run_has_the_same_page(run: Path) -> None:
    content = read_content(run)[1]
    page = Page(render(content.values, content.pictures))
    ids = [attributes["id"] for tag, attributes in page.elements if tag == "section"]
    assert ids == [name for name in SECTIONS if name not in ("space", "advice", "forecast")]
    assert [name for name in ids if "missing" in content.values[str(name)]] == []
    assert "This run trained tiny on" in page.text
    assert f"automl-pt reproduce {run}" in page.text


def test_a_trial_is_judged_on_the_split_of_its_study(study: Path) -> None:
    trial = next(path.parent for path in sorted(study.glob("trials/*/model.json")))
    content = read_content(trial)[1]
    info = json.loads((trial / "model.json").read_text())
    assert content.values["classes"]["accuracy"] == pytest.approx(info["metrics"]["val_accuracy"])
    assert not (trial / "manifest.json").exists()


def test_no_other_split_is_drawn_where_the_models_own_is_gone(run: Path) -> None:
    (run / "manifest.json").unlink()
    content = read_content(run)[1]
    assert "The manifest of the model's data is missing; given:" in content.values["classes"]["missing"]
    assert not (run / "manifest.json").exists()


def test_a_run_with_a_damaged_history_has_a_page(run: Path) -> None:
    (run / "history.jsonl").write_text("{")
    content = read_content(run)[1]
    for name in ("trials", "curves", "time"):
        assert "The run's history cannot be read." in content.values[name]["missing"]
    assert "missing" not in content.values["classes"]
    render(content.values, content.pictures)


def test_a_run_that_was_killed_at_once_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"config": {}, "reason": "failed", "error": "OutputError: no room"}')
    content = read_content(tmp_path)[1]
    assert "It kept no model. It ended: failed: OutputError: no room." in (
        " ".join(content.values["answer"]["sentences"])
    )
    assert "No epoch has finished." in Page(render(content.values, content.pictures)).text


# an option that only one backbone has, one that may be 0, and one whose values have no order
@pytest.mark.parametrize("option", [{}, {"dropout": [0.0, 0.1]}, {"pool": ["avg", 2]}, {"pool": [None, "max", True]}])
@pytest.mark.parametrize("everywhere", [True, False])
def test_what_a_backbone_adds_to_the_search_has_its_importance(option: dict[str, list[Any]], everywhere: bool) -> None:
    trials = []
    for number in range(12):
        added = {name: values[number % len(values)] for name, values in option.items() if everywhere or number % 2}
        params = {"lr": 0.001 * 1.5**number, "batch_size": (8, 16)[number % 2], **added}
        trials.append(TrialRecord(number, "COMPLETE", params, 1.0 / (number + 1), 1, 1.0, "completed", {}))
    shares = importance(trials, {trial.number: trial.value or 0.0 for trial in trials})["shares"]
    assert set(shares) == {"lr", "batch_size", *(option if everywhere else ())}
    assert sum(shares.values()) == pytest.approx(1)
