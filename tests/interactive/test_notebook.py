"""The tutorial's notebook runs in a real kernel and shows what it should; a cell is not drawn too often."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from rich.text import Text

from automl_pt.interactive import display
from automl_pt.interactive.display import Cell, SearchCell, in_notebook, is_shown
from automl_pt.study import events
from automl_pt.training.result import EpochResult

ROOT = Path(__file__).parents[2]


def outputs(cell: Any, kind: str) -> list[str]:
    return [one["data"][kind] for one in cell.outputs if kind in one.get("data", {})]


def test_the_tutorial_runs_and_shows_its_results(tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    from make_notebook import executed  # a script beside the documents

    cells = {cell.source.split("\n")[0]: cell for cell in executed(tmp_path).cells if cell.cell_type == "code"}
    search = next(cell for line, cell in cells.items() if line.startswith("result = search("))
    assert [set(one["data"]) for one in search.outputs] == [{"text/html", "text/plain"}]  # nothing but the cell
    [html], [text] = outputs(search, "text/html"), outputs(search, "text/plain")
    assert "<table>" in html
    assert "<svg" in html  # the losses
    assert "trial  learning rate" in text  # where HTML cannot be shown
    [html], [line] = outputs(cells["result"], "text/html"), outputs(cells["result"], "text/plain")
    assert "validation accuracy" in html
    assert line.startswith("StudyResult(name='digits', best='trial ")
    [frame] = outputs(cells["trials = result.trials.to_frame()"], "text/plain")
    assert frame.split()[:4] == ["number", "lr", "batch_size", "val_loss"]
    training = next(cell for line, cell in cells.items() if line.startswith("settings ="))
    assert "<svg" in outputs(training, "text/html")[0]
    [mistakes] = [one["text"] for one in cells["from automl_pt.core.errors import ConfigError"].outputs]
    assert "trails: unknown setting; did you mean 'trials'?" in mistakes
    assert outputs(cells['read_study("digits")'], "text/plain")[0].startswith("StudyReport(name='digits'")


class Drawn(Cell):
    """A cell whose drawings are kept instead of shown."""

    def __init__(self) -> None:
        super().__init__(clock=lambda: self.now)
        self.now, self.shown = 0.0, list[dict[str, str]]()

    def _put(self, data: dict[str, str]) -> None:
        self.shown.append(data)


def draw(cell: Cell, text: str, *, now: bool = False) -> None:
    cell.draw(lambda: f"<p>{text}</p>", lambda: Text(text), now=now)


def test_a_cell_is_drawn_at_most_twice_a_second_and_its_last_state_is_not_lost() -> None:
    cell = Drawn()
    with cell.kept():
        for number in range(100):
            cell.now = number / 100
            draw(cell, str(number))
    assert [one["text/plain"] for one in cell.shown] == ["0", "50", "99"]
    assert cell.shown[-1]["text/html"] == "<p>99</p>"


def test_after_the_stop_button_the_cell_says_how_to_continue(capsys: pytest.CaptureFixture[str]) -> None:
    cell = Drawn()

    def interrupted() -> None:
        with cell.kept():
            draw(cell, "first")
            draw(cell, "second")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [one["text/plain"] for one in cell.shown] == ["first", "second"]
    assert capsys.readouterr().out == f"{display.STOPPED}\n"


def test_nothing_is_shown_outside_a_notebook_unless_it_is_asked_for() -> None:
    assert not in_notebook()
    assert [is_shown(show) for show in (None, True, False)] == [False, True, False]


def result(epoch: int, **more: Any) -> EpochResult:
    return EpochResult(epoch, 1.0, 1 / epoch, 0.5, None, 0.1, 1.0, 0.0, 0, 1.0, is_best=True, **more)


def test_a_cell_of_a_search_escapes_and_cuts_what_it_shows() -> None:
    cell = Drawn()
    search = SearchCell(cell)
    name = "<script>alert(1)</script>\x1b[31m" + "x" * 300
    search.preparing(name, 1, 2)
    search.show(events.StudyStarted(name, "studies/a", "study.db", 2, 0, 0, 2))
    for number in (0, 1):
        search.show(events.TrialStarted(number, {"backbone": f"{number}{name}", "lr": 0.1}, 0, 2))
        search.show(events.EpochDone(number, result(1)))
        search.show(events.EpochDone(number, result(2)))
    search.show(events.TrialEnded(0, "COMPLETE", name, 0.5, 2, 1.0))
    search.show(events.NewBest(0, 0.5, "model"))
    search.show(events.Notice(name))
    search.show(events.Progress(0.5, 10.0, None))
    html = search.html()
    assert "<script" not in html
    assert "\x1b" not in html
    assert "x" * 300 in html  # a note is whole
    assert 'class="best"' in html
    assert html.count("<svg") == 1
    assert "0:10 spent" in html


def test_a_training_prints_lines_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    epochs = [result(1), result(2, reason="completed")]
    assert list(display.shown_epochs(iter(epochs))) == epochs
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["epoch 1", "epoch 2"]
