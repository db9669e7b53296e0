"""`automl-pt studies`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("studies")
@click.option(
    "--root", type=click.Path(path_type=Path), default="studies", show_default=True, help="Folder to look in."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list instead of a table.")
def command(root: Path, as_json: bool) -> int:
    """List the studies in studies/: what each searches, how far it is, its best loss.

    Exit code 1 says that some could not be read.
    """
    from automl_pt.cli.report_display import print_studies
    from automl_pt.study.report import StudyReport, list_studies

    found = list_studies(root)
    reports = [report for report in found if isinstance(report, StudyReport)]
    errors = [error for error in found if not isinstance(error, StudyReport)]
    if as_json:
        from automl_pt.files import to_json

        click.echo(to_json([{**report.to_dict(), "trials": len(report.trials)} for report in reports]))
    else:
        print_studies(reports, root)
    for error in errors:
        click.echo(f"error: {error}", err=True)
    return 1 if errors else 0
