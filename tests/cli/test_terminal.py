"""What a person sees at 80 columns: no broken table, grouped help, suggestions, relative paths."""

from __future__ import annotations

import re
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from automl_pt.cli import COMMANDS, cli
from automl_pt.cli.columns import folded, print_columns
from automl_pt.cli.groups import GROUPS
from automl_pt.cli.live_table import LiveView
from automl_pt.cli.options import from_file
from automl_pt.cli.search import command as search_command
from automl_pt.cli.search_lines import Opening
from automl_pt.cli.tables import Column, fitted, varying
from automl_pt.cli.train import command as train_command
from automl_pt.core.errors import ConfigError
from automl_pt.core.files import not_found
from automl_pt.core.text import shown_path
from automl_pt.study.events import (
    EpochDone,
    NetworkChosen,
    StudyStarted,
    TrialEnded,
    TrialPaused,
    TrialRanked,
    TrialStarted,
)
from automl_pt.training.result import EpochResult

NAMES = st.text(st.characters(codec="utf-8"), min_size=0, max_size=60)


def printed(view: Any, width: int) -> list[str]:
    console = Console(width=width, file=StringIO())
    console.print(view)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(text, str)
    return text.splitlines()


@given(rows=st.lists(st.tuples(NAMES, NAMES, st.floats(0, 1e9)), min_size=1, max_size=5), width=st.integers(60, 120))
def test_a_table_has_a_line_for_each_row_and_no_more(rows: list[tuple[str, str, float]], width: int) -> None:
    columns = [
        Column("class", [row[0] for row in rows], text=True),
        Column("from", [row[1] for row in rows], text=True, optional=1),
        *(Column(f"figure {place}", [f"{row[2]:.4f}" for row in rows], optional=place) for place in range(2, 6)),
        Column("loss", [f"{row[2]:.3g}" for row in rows]),
    ]
    table, dropped = fitted(columns, width)
    lines = printed(table, width)
    assert len(lines) == 2 + len(rows)
    assert max(map(cell_len, lines)) <= width
    assert "class" in lines[0]
    assert "loss" in lines[0]
    assert set(dropped) <= {column.heading for column in columns if column.optional}


def test_what_varies_is_a_column_and_what_does_not_is_none() -> None:
    rows = [{"batch_size": 8, "lr": 0.1, "drop": 0.1}, {"batch_size": 8, "lr": 0.2}]
    assert varying(rows) == ["lr", "drop"]


def live(trials: int) -> LiveView:
    now = iter(range(1000))
    view = LiveView(clock=lambda: float(next(now)))
    view.take(StudyStarted("photos", "studies/photos", "study.db", trials, 0, 2, 5))
    for number in range(trials):
        params = {"lr": 0.001 * (number + 1), "batch_size": 16, "depth_of_the_head": number, "mix": "x" * 9 * number}
        view.take(TrialStarted(number, params, 0, 0.5))
        view.take(TrialRanked(number, 0.5, 1.25 + number))
        view.take(TrialPaused(number, 0.5, None))
    return view


def test_the_live_table_never_wraps_and_shows_a_score_and_a_time_for_every_trial() -> None:
    view = live(3)
    view.take(TrialEnded(1, "PRUNED", "pruned", None, 0, 0.0))
    view.take(TrialStarted(2, {}, 0, 5))
    figures = (1, 0.9, 0.8, 0.75, None, 0.1, 1.0, 0.0, 0, 1.0, True)
    view.take(EpochDone(2, EpochResult(*figures)))
    lines = printed(view.render(80), 80)
    rows = [line for line in lines if re.match(r" +[0-2] ", line)]
    assert len(rows) == 3
    assert max(map(len, lines)) <= 80
    assert re.search(r"~1\.2500 +- +0:0[1-9] +paused", rows[0])
    assert re.search(r"~2\.2500 +- +0:0[1-9] +pruned", rows[1])
    assert re.search(r"0\.8000 +75\.0 % +0:0\d +running", rows[2])
    assert "batch" not in lines[1]
    assert any(line.startswith("not shown: ") for line in printed(view.render(60), 60))


def test_plain_columns_fit_where_a_width_is_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [("a" * 50, "b" * 20, "c" * 60)]
    print_columns(("name", "licence", "description"), rows, drop=("licence",))
    wide = capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "80")
    print_columns(("name", "licence", "description"), rows, drop=("licence",))
    narrow = capsys.readouterr().out
    assert max(map(len, wide.splitlines())) == 134
    assert max(map(len, narrow.splitlines())) <= 80
    assert "licence" not in narrow


@pytest.mark.parametrize("words", [["datasets"], ["backbones", "resnet*"], ["cache", "list"], ["plugins"], ["--help"]])
def test_no_listing_is_wider_than_80_columns(
    runner: CliRunner, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = runner.invoke(cli, words)
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("command", [search_command, train_command])
def test_help_has_groups_and_the_dozen_common_options_come_first(command: Any, runner: CliRunner) -> None:
    text = runner.invoke(command, ["--help"]).stdout
    heads = re.findall(r"^([A-Z][a-z ]+):$", text, re.M)
    assert heads[:2] == ["Common options", "Data"]
    assert heads[-1] == "Advanced"
    common = re.search(r"Common options:\n(.*?)\n\n", text, re.S)
    assert common is not None
    options = re.findall(r"^  (--?[a-z-]+)", common[1], re.M)
    assert 10 <= len(options) <= 14
    shown = re.findall(r"^  (?:-., )?(--[a-z-]+)", text[text.index("Common options:") :], re.M)
    assert len(shown) == len(set(shown)) == len(command.params) - 1 + 1  # without the argument, with --help


def test_every_name_of_a_group_is_an_option() -> None:
    known = {param.name for command in (search_command, train_command) for param in command.params} | {"help"}
    named = [name for names in GROUPS.values() for name in names]
    assert set(named) <= known
    assert len(named) == len(set(named))


@pytest.mark.parametrize(("word", "near"), [("serach", "search"), ("predct", "predict"), ("xyzzy", None)])
def test_a_misspelt_command_is_suggested(runner: CliRunner, word: str, near: str | None) -> None:
    done = runner.invoke(cli, [word])
    assert done.exit_code == 2
    assert (f"Did you mean {near}" in done.output) == (near is not None)
    assert near is None or near in COMMANDS


def test_a_neighbouring_folder_is_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    assert not_found("photo") == "Folder or file not found: photo. Did you mean photos?"
    assert not_found("no/such") == "Folder or file not found: no/such"
    assert not_found("digit", ["digits"]) == "Folder or file not found: digit. Did you mean digits?"
    (tmp_path / "studies" / "photos" / "model").mkdir(parents=True)
    for asked, near in {
        "studies/phots/model": "studies/photos/model",
        "stuides/photos/model": "studies/photos/model",
        "studies/phots/modell": "studies/photos/model",
        "studies/phots/else": "studies/photos",
        str(tmp_path / "PHOTOS"): str(tmp_path / "photos"),
    }.items():
        assert not_found(asked) == f"Folder or file not found: {asked}. Did you mean {near}?"
    assert not_found("a\0b") == "Folder or file not found: a\\x00b"


def test_paths_below_the_working_folder_are_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown_path(tmp_path / "a" / "b") == str(Path("a") / "b")
    assert shown_path(tmp_path.parent) == str(tmp_path.parent)
    assert shown_path("a\nb") == "a\\nb"


def test_a_config_file_takes_the_options_of_its_command(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('dataset = "digits"\noutput = "runs/x"\nquiet = true\njson = false\n')
    assert from_file(path, output=None, quiet=False, as_json=True) == {
        "output": Path("runs/x"),
        "quiet": True,
        "as_json": True,
    }
    with pytest.raises(ConfigError, match="output: a search has none"):
        from_file(path, quiet=False, as_json=False)
    path.write_text("output = 3\nquiet = 1\n")
    with pytest.raises(ConfigError, match=r"(?s)output: must be a string.*quiet: must be true or false"):
        from_file(path, output=None, quiet=False)


SHOWN = st.characters(codec="utf-8", exclude_categories=["C", "Z"])
WORDS = st.lists(st.text(SHOWN, min_size=1, max_size=30), max_size=30)


@given(
    label=st.sampled_from(["", "note: ", "accuracy: ", "          ", "  given: "]),
    words=WORDS,
    width=st.integers(30, 90),
)
def test_a_long_line_goes_on_below_its_text_and_loses_no_word(label: str, words: list[str], width: int) -> None:
    line = label + " ".join(words)
    lines = folded(line, width).split("\n")
    assert " ".join(lines).split() == line.split()
    longest = max(map(cell_len, words), default=0)
    assert all(cell_len(part) <= max(width, 16 + longest) for part in lines)
    assert all(part.startswith("  ") for part in lines[1:])


def test_the_first_lines_of_a_search_fit_80_columns() -> None:
    opening = Opening()
    text = "resnet18, 11.7 M parameters, pretrained (BSD-3-Clause; on this machine)"
    lines = opening.lines(NetworkChosen("resnet18", True, "BSD-3-Clause", 0, text, 11_700_000))
    started = StudyStarted("photos", "studies/photos", "study.db", 16, 0, 2, 5)
    lines += opening.lines(replace(started, images={"train": 800, "val": 200}, classes=12, image_sizes=(224,)))
    assert [line for line in lines if cell_len(line) > 80] == []
