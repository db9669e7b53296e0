"""`automl-pt studies`."""

from __future__ import annotations

from pathlib import Path

import click

from automl_pt.cli.columns import say
from automl_pt.cli.lookup import plugin_option

#: of commands that read studies: a storage that only a study.json names is not opened
STORAGE = "URL of the storage of studies that are not kept in their own folder."


@click.group("studies", invoke_without_command=True)
@click.option(
    "--root", type=click.Path(path_type=Path), default="studies", show_default=True, help="Folder to look in."
)
@click.option("--storage", help=STORAGE)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list instead of a table.")
@click.pass_context
def command(context: click.Context, root: Path, storage: str | None, as_json: bool) -> int:
    """List the studies in studies/: what each searches, its progress, its best loss.

    The exit code is 1 if some could not be read.
    """
    if context.invoked_subcommand is not None:
        return 0
    from automl_pt.cli.report_display import print_studies
    from automl_pt.reporting.study import StudyReport, list_studies

    found = list_studies(root, storage=storage)
    reports = [report for report in found if isinstance(report, StudyReport)]
    errors = [error for error in found if not isinstance(error, StudyReport)]
    if as_json:
        from automl_pt.core.files import to_json

        click.echo(to_json([{**report.to_dict(), "trials": len(report.trials)} for report in reports]))
    else:
        print_studies(reports, root)
    for error in errors:
        say(f"error: {error}", err=True)
    return 1 if errors else 0


@command.command("compare")
@click.argument("first")
@click.argument("second")
@click.option("--storage", help=STORAGE)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda[:n] or mps.")
@plugin_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def compare(first: str, second: str, storage: str | None, device: str, plugins: tuple[str, ...], as_json: bool) -> int:
    """Compare two studies: data, space, trials, cost, best losses, test figures.

    FIRST and SECOND are names in studies/ or folders. On the same images their models are compared image by image.
    The exit code is 1 if their data differ, because their figures cannot then be compared.
    """
    from automl_pt.plugins.manager import load_plugins
    from automl_pt.reporting.compare_studies import compare_studies

    found = compare_studies(first, second, storage=storage, device=device, plugins=load_plugins(plugins))
    if as_json:
        from automl_pt.core.files import to_json

        click.echo(to_json(found.to_dict()))
    else:
        from automl_pt.cli.studies_display import print_side_by_side

        print_side_by_side(found)
    return 0 if found.same_data else 1
