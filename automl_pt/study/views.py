"""How a study shows itself to Python: on one line, in a notebook, as a DataFrame, and as Optuna's own study."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_pt.core.errors import InstallationError, StorageError, StudyError
from automl_pt.core.text import one_line, printable, shown_path

if TYPE_CHECKING:
    import pandas as pd
    from optuna import Study

    from automl_pt.model.load import Model
    from automl_pt.plugins.manager import PluginFiles, Plugins
    from automl_pt.study.records import ProbeRecord, TrialRecord

#: file in a study's folder that says what a search does after its trials; it exists only meanwhile
FINISHING = "finishing.json"
#: why a search ended, in words
ENDED = {
    "trials": "all trials were run",
    "timeout": "the time was up",
    "flat": "the last trials brought no improvement",
    "interrupted": "interrupted",
}
#: columns of a trial in a table besides its settings and metrics
BEFORE, AFTER = ("number", "state"), ("val_loss", "epochs", "seconds", "rank_loss", "ranked_at", "reason", "machine")
#: columns of the table in a notebook after the settings
_ANSWER = ("val_loss", "val_accuracy", "rank_loss", "epochs", "reason")
#: the database in a study's own folder, as study.json names it
OWN_STORAGE = "study.db"


class Trials(tuple["TrialRecord", ...]):
    """The trials of a study, in the order of their numbers: a tuple that is also a table."""

    __slots__ = ()

    def rows(self) -> list[dict[str, Any]]:
        """Return each trial as a row: number, state, its settings, its results, and its metrics as `val_NAME`.

        A setting named as another column has `param_` before its name.
        """
        from automl_pt.study.records import in_order

        names = in_order({name for trial in self for name in trial.params})
        metrics = dict.fromkeys(name for trial in self for name in trial.metrics if name != "loss")
        taken = {*BEFORE, *AFTER, *(f"val_{name}" for name in metrics)}
        columns = {name: f"param_{name}" if name in taken else name for name in names}
        return [
            {
                "number": trial.number,
                "state": trial.state,
                **{column: trial.params.get(name) for name, column in columns.items()},
                "val_loss": trial.value,
                **{f"val_{name}": trial.metrics.get(name) for name in metrics},
                **{name: getattr(trial, name) for name in AFTER[1:]},
            }
            for trial in self
        ]

    def to_frame(self) -> pd.DataFrame:
        """Return the trials as a pandas DataFrame, one a row; raise InstallationError without pandas."""
        try:
            import pandas as pd
        except ImportError as error:
            raise InstallationError(
                "pandas is not installed, which makes the table",
                given=str(error),
                remedy="`pip install pandas`; `result.trials.rows()` has the same values as dictionaries",
            ) from error
        return pd.DataFrame(self.rows(), columns=None if self else [*BEFORE, *AFTER])

    def __repr__(self) -> str:
        return f"<{len(self)} trials; .to_frame() is a table>" if len(self) != 1 else f"<1 trial: {self[0]!r}>"

    def _repr_html_(self) -> str:
        from automl_pt.reporting.html.fragment import fragment

        return fragment(_table(self, None))


class StudyViews:
    """What a search's result and a study that is read have in common for a Python caller."""

    name: str
    directory: str
    model: str | None
    best: TrialRecord | None
    trials: Trials
    probes: tuple[ProbeRecord, ...]

    @cached_property
    def study(self) -> Study:
        """Return Optuna's own study, for its tables and plots; what is added to it is a foreign trial.

        Raises StorageError for a study on a server with a password, which no result holds.
        """
        import optuna

        from automl_pt.study.store.backends import default_url, open_storage

        url: str | None = getattr(self, "storage", None)
        if url is None:
            raise StudyError(
                "The study has not started", given=printable(self.directory), remedy="search first, then read it"
            )
        if "***" in url:
            raise StorageError(
                "The password of the study's storage is not kept",
                given=printable(url),
                remedy=f"optuna.load_study(study_name={self.name!r}, storage=URL), with the whole URL",
            )
        own = url == OWN_STORAGE
        storage = open_storage(default_url(Path(self.directory)) if own else url)
        return optuna.load_study(study_name=self.name, storage=storage)

    def load_model(self, *, device: str = "auto", plugins: Plugins | PluginFiles | None = None) -> Model:
        """Return the finished model; its `network` is the torch module. Raises StudyError where there is none."""
        if self.model is None:
            raise StudyError(
                "There is no model, because no trial kept weights",
                given=f"study {printable(self.name)} in {printable(self.directory)}",
                remedy="search again with more time or a lower learning rate; `trials` says how each ended",
            )
        from automl_pt.model.load import load_model

        return load_model(self.model, device=device, plugins=plugins)

    def figures(self) -> dict[str, str]:
        """Return what a person wants to know first, by name."""
        best = self.best
        if best is None or best.value is None:
            return {"best": "no trial kept weights"}
        settings = ", ".join(f"{name} {_short(value)}" for name, value in best.params.items())
        found = {"best": f"{best.title}: {settings}", "validation loss": _short(best.value)}
        if (share := best.metrics.get("accuracy")) is not None:
            found["validation accuracy"] = self._share(share, "val")
        test: Mapping[str, float] = getattr(self, "test", None) or {}
        if "accuracy" in test:
            found["test accuracy"] = self._share(test["accuracy"], "test")
        pages = {"model": self.model, "page": getattr(self, "report", None)}
        return {**found, **{name: shown_path(path) for name, path in pages.items() if path is not None}}

    def _share(self, share: float, split: str) -> str:
        """Write an accuracy with its interval."""
        from automl_pt.model.intervals import wilson
        from automl_pt.study.store.study_files import image_counts

        assert self.best is not None
        images = image_counts(Path(self.directory), self.best.number).get(split, 0)
        if not images:
            return f"{100 * share:.1f} %"
        low, high = wilson(round(share * images), images)
        return f"{100 * share:.1f} % of {images} images (95 % interval {100 * low:.1f} to {100 * high:.1f} %)"

    def __repr__(self) -> str:
        best, model = self.best, self.model
        shown = {
            "name": self.name,
            "best": None if best is None else best.title,
            "val_loss": None if best is None else best.value,
            "val_accuracy": None if best is None else best.metrics.get("accuracy"),
            "trials": len(self.trials),
            "status": getattr(self, "status", None) or getattr(self, "stopped", None),
            "model": None if model is None else shown_path(model),
        }
        return one_line(type(self).__name__, shown)

    def _repr_html_(self) -> str:
        from automl_pt.reporting.html.fragment import facts, fragment, heading, loss_curves

        number = None if self.best is None else self.best.number
        curves = [
            {
                "best": trial.number == number,
                "complete": trial.state == "COMPLETE",
                "points": sorted(trial.losses.items()),
            }
            for trial in self.trials
        ]
        parts = heading(f"study {self.name}"), facts(self.figures()), _table(self.trials, number), loss_curves(curves)
        return fragment(*parts)


def _table(trials: Trials, best: int | None) -> str:
    """Return the trials as an HTML table, the best first: what was searched, and the figures that decide."""
    from automl_pt.reporting.html.formats import percent, setting
    from automl_pt.reporting.html.fragment import table

    rows = trials.rows()
    if not rows:
        return ""
    ordered = sorted(rows, key=lambda row: (row["number"] != best, _order(row["val_loss"]), row["number"]))
    own = [name for name in ordered[0] if name not in {*BEFORE, *AFTER} and not name.startswith("val_")]
    names = ["number", *own, *_ANSWER]
    texts = [place for place, name in enumerate(names) if any(isinstance(row.get(name), str) for row in ordered)]
    cells = [
        [percent(row.get(name)) if name == "val_accuracy" else _short(row.get(name)) for name in names]
        for row in ordered
    ]
    is_first = best is not None and ordered[0]["number"] == best
    return table(["trial", *map(setting, names[1:])], cells, texts=texts, best=0 if is_first else None)


def _order(value: float | None) -> float:
    return math.inf if value is None or math.isnan(value) else value


def _short(value: object) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
