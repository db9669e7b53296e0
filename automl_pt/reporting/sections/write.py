"""A report in its two forms: plain values for `--json`, and one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from automl_pt.config import SearchConfig
from automl_pt.core.errors import StudyError
from automl_pt.core.files import atomic_write
from automl_pt.plugins.manager import Plugins, load_plugins
from automl_pt.reporting.html.page import render
from automl_pt.reporting.run import RunReport, is_run, read_head, read_run
from automl_pt.reporting.sections import Content
from automl_pt.reporting.sections.content import run_content, study_content
from automl_pt.reporting.sections.studies import studies_content
from automl_pt.reporting.study import StudyReport, find_study, is_elsewhere, read_study
from automl_pt.study.executor.base import Caller

#: the name a search gives its report, in the study's folder
NAME = "report.html"


def read_content(
    place: str | Path, *, storage: str | None = None, device: str = "auto", plugins: Plugins | None = None
) -> tuple[StudyReport | RunReport, Content]:
    """Return a study or a run, and all sections of its report; `place` is a study's name, its folder, or a run's.

    Raises as `read_study`, and StudyError where a run.json is damaged; other damage is stated in its section.
    """
    if is_run(Path(place)):
        folder = Path(place)
        try:
            run = read_run(folder)
        except StudyError:
            run = read_head(folder)  # the page states that the history is damaged
        return run, run_content(run, device=device, plugins=plugins)
    report = read_study(place, storage=storage)
    return report, study_content(report, device=device, plugins=plugins)


def read_several(places: Sequence[str | Path], *, storage: str | None = None) -> tuple[list[StudyReport], Content]:
    """Return several studies, and the report that compares them; raises as `read_study`.

    `storage` is opened for those outside of their own folder.
    """
    folders = [find_study(place) for place in places]
    reports = [read_study(folder, storage=storage if is_elsewhere(folder) else None) for folder in folders]
    return reports, studies_content(reports)


def write_report(config: SearchConfig, directory: Path, plugins: Plugins | None, caller: Caller) -> Path:
    """Write the page of a study whose search has just ended and still holds its lock; return its path."""
    report = read_study(directory, storage=config.storage, ours=True)
    plugins = plugins or load_plugins(config.plugins)
    content = study_content(report, device=config.device, plugins=plugins, caller=caller)
    return write_page(content, directory / NAME)


def write_page(content: Content, path: Path) -> Path:
    """Write the page of a report as one self-contained file; raise OutputError when that fails."""
    atomic_write(path, render(content.values, content.pictures))
    return path
