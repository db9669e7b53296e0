from __future__ import annotations

from io import StringIO
from pathlib import Path

from rich.console import Console
from toy_trial import TOY

from automl_pt.api.search import steps
from automl_pt.cli.live_table import LiveView
from automl_pt.cli.search_lines import describe
from automl_pt.config import SearchConfig
from automl_pt.interactive.display import SearchCell
from automl_pt.reporting.study import read_study
from automl_pt.study.events import EpochDone, Finished, Finishing, TrialEnded
from automl_pt.study.views import FINISHING
from automl_pt.training.result import EpochResult


def drawn(view: LiveView) -> str:
    console = Console(width=100, file=StringIO())
    console.print(view.render())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(text, str)
    return text


def test_a_bar_shows_how_far_the_images_are_read_until_the_study_begins(tmp_path: Path) -> None:
    view = LiveView()
    view.preparing("hashing", 400, 400)
    view.preparing("decoding", 123, 400)
    assert "decoding" in drawn(view)
    assert "123/400" in drawn(view)
    assert "trial" not in drawn(view)
    for event in steps(SearchConfig(dataset="plain", epochs=1, trials=1, workers=0), tmp_path / "toy", objective=TOY):
        view.take(event)
    assert "decoding" not in drawn(view)
    assert "study toy" in drawn(view)


def test_the_table_shows_the_losses_of_the_weights_that_were_kept_not_the_last_ones(tmp_path: Path) -> None:
    view, result = LiveView(), None
    config = SearchConfig(dataset="plain", epochs=20, trials=4, workers=0, pruner="none")
    for event in steps(config, tmp_path / "toy", objective=TOY):
        view.take(event)
        result = event.result if isinstance(event, Finished) else result
    assert result is not None
    ended = [trial for trial in result.trials if trial.state == "COMPLETE"]
    assert any(trial.value != trial.losses[max(trial.losses)] for trial in ended)
    assert [view.rows[trial.number].values["loss"] for trial in ended] == [trial.value for trial in ended]


def test_what_is_done_after_the_trials_is_shown_here_and_to_other_commands(tmp_path: Path) -> None:
    view, told, states = LiveView(clock=lambda: 0.0), list[str](), list[str]()
    config = SearchConfig(dataset="plain", epochs=2, trials=4, workers=0, pruner="none")
    for event in steps(config, tmp_path / "toy", objective=TOY, said=("a note", "a note")):
        view.take(event)
        if isinstance(event, Finishing):
            told.append(event.text)
            states.append(read_study(tmp_path / "toy").state)
            assert describe(event) == [f"finishing: {event.text}"]
            assert f"finishing: {event.text}, 0:00" in drawn(view)
            assert event.text in SearchCell(view=view).html()
    assert view.notes.count("a note") == 1
    assert any(text.startswith("comparing trial ") for text in told)
    assert states == [f"finishing: {text}" for text in told]
    assert read_study(tmp_path / "toy").state == "finished (all trials were run)"
    assert not (tmp_path / "toy" / FINISHING).exists()
    assert "finishing" not in drawn(view)


def test_where_the_moving_average_was_kept_its_figures_are_shown() -> None:
    view = LiveView()
    for epoch, loss, average in ((1, 0.9, 0.5), (2, 0.8, 0.6)):
        figures = (epoch, loss, loss, 0.7, None, 0.1, 1.0, 0.0, 0, 1.0, epoch == 1)
        view.take(EpochDone(0, EpochResult(*figures, ema_val_loss=average, ema_val_accuracy=0.75)))
    view.take(TrialEnded(0, "COMPLETE", "completed", 0.5, 2, 2.0))
    assert (view.rows[0].values["loss"], view.rows[0].values["accuracy"]) == (0.5, 0.75)
