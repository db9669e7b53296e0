"""`automl-pt check`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from automl_pt.cli.options import build_config, option
from automl_pt.config import TrainConfig

if TYPE_CHECKING:
    from automl_pt.check import CheckReport

F = TypeVar("F", bound=Callable[..., Any])

#: the settings that say what the data are; a check does not use the others
COLUMNS = ("image_column", "label_column", "split_column", "group_column", "group_by")
SETTINGS = ("root", "download", *COLUMNS, "follow_links", "max_bad", "plugins")


def _settings_options(function: F) -> F:
    for name in reversed(SETTINGS):
        function = option(name, TrainConfig.model_fields[name])(function)
    return function


@click.command("check")
@click.argument("dataset", metavar="DATA")
@_settings_options
@click.option("--json", "as_json", is_flag=True, help="Print all findings as one JSON object.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a page with small pictures.")
@click.option("--force", is_flag=True, help="Let --html replace a file that automl-pt did not write.")
def command(as_json: bool, html: Path | None, force: bool, **options: Any) -> int:
    """Check every image of DATA before training.

    DATA is a folder, archive or table of labelled images, or a name from `automl-pt datasets`. Every image is decoded
    completely; a second check reads only changed files. The exit code is 1 if a problem stops training or makes its
    figures wrong, else 0.
    """
    settings = build_config(TrainConfig, None, options)

    from automl_pt.check import check
    from automl_pt.cli.check_display import progress_bar
    from automl_pt.core.files import atomic_write, to_json
    from automl_pt.data.find import find
    from automl_pt.plugins.manager import load_plugins
    from automl_pt.reporting.html.marked import require_own_page

    if html is not None:
        require_own_page(html, force=force)
    data, _ = find(**settings.data_source, plugins=load_plugins(settings.plugins))
    with progress_bar() as progress:
        report = check(data, max_bad=settings.max_bad, progress=progress)
    if html is not None:
        from automl_pt.check.page import contact_sheet

        atomic_write(html, contact_sheet(report, data, settings.dataset))
    if as_json:
        click.echo(to_json(_to_dict(report, settings.dataset), indent=2))
    else:
        from automl_pt.cli.check_display import show

        show(report, settings.dataset, html)
    return 0 if report.ok else 1


def _to_dict(report: CheckReport, dataset: str) -> dict[str, Any]:
    from dataclasses import asdict

    return {"dataset": dataset, "ok": report.ok, **asdict(report)}
