"""What `automl_pt.train` and `automl_pt.search` do: read the settings, call the package, show the progress.

Their signatures, with every setting, are in `signatures.py`, which is generated.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from automl_pt.config import Settings

if TYPE_CHECKING:
    from automl_pt.plugins.manager import PluginFiles, Plugins
    from automl_pt.study.events import Event
    from automl_pt.study.records import StudyResult
    from automl_pt.training.result import EpochResult

P = ParamSpec("P")
R = TypeVar("R")


def declares(function: Callable[..., R], kind: type[Settings]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator for the declaration of `function`, which is called with what the caller gave and no default.

    A setting that is not given and one that is given with its default differ: an optimiser, for one, publishes values
    for what is not given. The settings of `kind` and their texts are added to the docstring.
    """

    def decorate(declaration: Callable[P, R]) -> Callable[P, R]:
        @wraps(declaration)
        def call(*arguments: P.args, **given: P.kwargs) -> R:
            paths = {name: os.fspath(value) for name, value in given.items() if isinstance(value, os.PathLike)}
            return function(*arguments, **{**given, **paths})

        rows = (f"{name}: {field.description}" for name, field in kind.model_fields.items() if name != "dataset")
        call.__doc__ = "\n\n".join([(declaration.__doc__ or "").rstrip(), "    Settings:", *(f"    {r}" for r in rows)])
        return call

    return decorate


def train(
    dataset: str | Path,
    *,
    output: str | Path | None = None,
    plugins: Plugins | PluginFiles | None = None,
    show: bool | None = None,
    **settings: Any,
) -> Iterator[EpochResult]:
    """Train one model with fixed parameters, and yield each epoch's result.

    The first result's notes begin with those on the data: what was guessed, and which files are ignored.
    The run directory `output` (default: `runs/DATASET-BACKBONE`) is a model directory too, for `load_model`; the same
    call again resumes the run. `plugins` are plugin files, as for `--plugin`, or the result of `load_plugins`. `show`
    draws the epochs in a notebook, and prints them elsewhere; by default only a notebook shows them.
    Raises ConfigError, DatasetError and the other errors of `automl_pt.core.errors` before the first epoch. A run that
    diverges raises nothing: the `reason` of its last result is "diverged", and if that is the first epoch's, the run
    directory holds no model, which `load_model` then reports.
    """
    from automl_pt.interactive.display import is_shown, shown_epochs
    from automl_pt.runs.run import train as run

    results = run(os.fspath(dataset), output=output, plugins=plugins, **settings)
    return shown_epochs(results) if is_shown(show) else results


def search(
    dataset: str | Path,
    *,
    plugins: Plugins | PluginFiles | None = None,
    on_event: Callable[[Event], None] | None = None,
    show: bool | None = None,
    **settings: Any,
) -> StudyResult:
    """Search learning rate and batch size on `dataset`; return the result, with the finished model's folder.

    The study is kept in `studies/NAME`, and the same call resumes it. `plugins` are plugin files, as for `--plugin`, or
    the result of `load_plugins`; plugins registered by hand exist in this process only, so trials then run in it.
    `show` draws the trials in a notebook, and prints what the command prints elsewhere; by default only a notebook
    shows them. `on_event` receives every event. Raises the errors of `automl_pt.core.errors`; StudyError if every trial
    has failed. If no trial kept weights, because the time was over or all diverged, the result's `model` and `best` are
    None.
    """
    from automl_pt.api.search import search as run
    from automl_pt.interactive.display import is_shown, showing

    if not is_shown(show):
        return run(os.fspath(dataset), plugins=plugins, on_event=on_event, **settings)
    with showing() as display:

        def both(event: Event) -> None:
            display.show(event)
            if on_event is not None:
                on_event(event)

        return run(os.fspath(dataset), plugins=plugins, on_event=both, on_progress=display.preparing, **settings)
