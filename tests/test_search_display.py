from __future__ import annotations

from pathlib import Path

from toy_trial import TOY

from automl_pt.cli.search_display import LiveView
from automl_pt.config import SearchConfig
from automl_pt.study.events import Finished
from automl_pt.study.search import steps


def test_the_table_shows_the_losses_of_the_weights_that_were_kept_not_the_last_ones(tmp_path: Path) -> None:
    view, result = LiveView(), None
    config = SearchConfig(dataset="plain", epochs=20, trials=4, workers=0, pruner="none")
    for event in steps(config, tmp_path / "toy", subject=TOY):
        view.take(event)
        result = event.result if isinstance(event, Finished) else result
    assert result is not None
    ended = [trial for trial in result.trials if trial.state == "COMPLETE"]
    assert any(trial.value != trial.losses[max(trial.losses)] for trial in ended)
    assert [view.rows[trial.number].val_loss for trial in ended] == [trial.value for trial in ended]
