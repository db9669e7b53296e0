"""`automl-pt search`."""

from __future__ import annotations

import gc
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from automl_pt.cli.groups import GroupedCommand
from automl_pt.cli.names import load_known
from automl_pt.cli.options import build_config, from_file, settings_options
from automl_pt.cli.working import load
from automl_pt.config import SearchConfig
from automl_pt.core.errors import StudyError
from automl_pt.core.missing_model import of_trials
from automl_pt.core.text import printable

if TYPE_CHECKING:
    from automl_pt.study.records import StudyResult


@click.command("search", cls=GroupedCommand)
@settings_options(SearchConfig)
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per event; the last holds the result.")
def command(config: Path | None, quiet: bool, as_json: bool, **options: Any) -> int:
    """Search learning rate and batch size for DATASET, and leave one finished model in studies/NAME/model.

    DATASET is a folder, archive or table of labelled images, or a name from `automl-pt datasets`. The first trial has
    the documented default settings (learning rate 0.001, batch size 16), or the nearest ones in the ranges that are
    searched. The same command continues where it was stopped; with a larger --trials it adds trials. The exit code is 1
    if there is no model.
    """
    since = time.monotonic()  # --timeout includes the seconds of loading PyTorch
    quiet, as_json = from_file(config, quiet=quiet, as_json=as_json).values()
    settings = build_config(SearchConfig, config, options)
    plugins = load_known(settings)

    load("automl_pt.api.search", quiet=quiet or as_json)
    from automl_pt.api.classifier_objective import in_time
    from automl_pt.api.next_study import next_study
    from automl_pt.api.search import steps, study_name
    from automl_pt.cli.search_display import search_display
    from automl_pt.cli.signals import READING, STEPPING, stopping, until_told
    from automl_pt.study.events import Finished, StudyStarted

    gc.freeze()  # what PyTorch and Optuna loaded is never garbage, and each full collection would look at all of it
    opened, metrics = next_study(settings, study_name(settings), plugins), plugins.metrics()
    with stopping(READING) as stop, search_display(quiet=quiet, as_json=as_json, metrics=metrics) as display:
        objective = in_time(settings, since, until_told(stop, display.preparing))
        for event in steps(
            opened.config,
            opened.directory,
            objective=objective,
            stop=lambda: stop.signal,
            since=since,
            said=opened.notes,
        ):
            if isinstance(event, StudyStarted):  # earlier events, the networks, come before the images are read
                stop.says = STEPPING
            display.show(event)
    if isinstance(event, Finished) and event.result.model is None and stop.signal is None:
        raise no_model(event.result)
    return stop.exit_code


def no_model(result: StudyResult) -> StudyError:
    """Raise an error that states why a search has no model."""
    absence = of_trials([(trial.state, trial.reason) for trial in result.trials], result.stopped)
    given = f"study {result.name} in {printable(result.directory)}"
    return StudyError(f"no model: {absence.what}", given=given, remedy=absence.remedy)
