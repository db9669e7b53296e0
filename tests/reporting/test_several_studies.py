"""`automl-pt report STUDY...`: the trials of several studies on one page, in one table, as JSON."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import write_folder
from test_after import search

from automl_pt.cli.report import command
from automl_pt.cli.report_display import print_several
from automl_pt.core.errors import UnknownNameError
from automl_pt.reporting.html.page import render
from automl_pt.reporting.sections.studies import OTHER_DATA, studies_content
from automl_pt.reporting.study import read_study

HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e{{7*7}}"


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with studies `a` and `b` on the same images, and `c` on others."""
    root = tmp_path_factory.mktemp("several")
    same, other = (write_folder(root / name, {"train": 4, "val": 3}) for name in ("same", "other"))
    shutil.rmtree(other / "train" / sorted(path.name for path in (other / "train").iterdir())[0])
    shutil.rmtree(other / "val" / sorted(path.name for path in (other / "val").iterdir())[0])
    for name, images in (("a", same), ("b", same), ("c", other)):
        search(images, root / name, trials=2, epochs=1, seed=len(name) + ord(name))
    return root


def test_studies_on_the_same_images_have_one_letter_and_others_are_said(studies: Path) -> None:
    values = studies_content([read_study(studies / name) for name in "abc"]).values
    rows = values["studies"]["rows"]
    assert rows[0]["images"] == {"train": 12, "val": 9}
    assert [row["number"] for row in rows] == [1, 2, 3]
    assert rows[2]["data"] != rows[0]["data"]
    assert values["studies"]["note"] == OTHER_DATA
    assert len(values["trials"]["rows"]) == 6
    assert sorted(row["study"] for row in values["trials"]["rows"]) == [1, 1, 2, 2, 3, 3]
    assert sum(row["best"] for row in values["trials"]["rows"]) == 3
    alone = studies_content([read_study(studies / "a"), read_study(studies / "a")]).values
    assert alone["studies"]["note"] == ""
    best = min(row["loss"] for row in alone["studies"]["rows"])
    assert alone["answer"]["sentences"][0].startswith(f"The lowest validation loss is {best:.4f}, of a")


def test_the_command_prints_a_table_a_page_and_json(studies: Path, tmp_path: Path, runner: CliRunner) -> None:
    places = [str(studies / name) for name in "abc"]
    shown = runner.invoke(command, places, standalone_mode=False)
    assert shown.exception is None
    assert [line.split()[0] for line in shown.output.splitlines() if line[:2] in ("a ", "b ", "c ")] == ["a", "b", "c"]
    page = tmp_path / "several.html"
    runner.invoke(command, [*places, "--html", str(page)], standalone_mode=False)
    assert page.read_text().count('<tr class="best"') == 3
    plain = json.loads(runner.invoke(command, [*places, "--json"], standalone_mode=False).output)
    assert [study["name"] for study in plain["studies"]] == ["a", "b", "c"]
    assert len(plain["sections"]["trials"]["rows"]) == 6
    with pytest.raises(UnknownNameError):
        runner.invoke(command, [places[0], "nowhere"], standalone_mode=False, catch_exceptions=False)


def test_hostile_names_are_text(studies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reports = [read_study(studies / name) for name in "ab"]
    values: dict[str, Any] = studies_content([type(one)(**{**vars(one), "name": HOSTILE}) for one in reports]).values
    html = render(values, {})
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "{{7*7}}" in html
    print_several(values)
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\u202e" not in printed


def test_a_study_that_was_not_started_has_a_line_too(studies: Path, tmp_path: Path) -> None:
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "study.toml").write_text('dataset = "photos"\n')
    values = studies_content([read_study(studies / "a"), read_study(tmp_path / "later")]).values
    assert values["studies"]["rows"][1]["data"] == "-"
    assert "not started" in render(values, {})
