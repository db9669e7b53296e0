"""`automl-pt report`."""

from __future__ import annotations

import click


@click.command("report")
@click.argument("study")
@click.option("--storage", help="The storage's URL, where it has a password.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def command(study: str, storage: str | None, as_json: bool) -> None:
    """Show what STUDY found, or has found so far: its trials, best first. Of a single run, its epochs.

    STUDY is a name in studies/, a study's folder, or a run directory.
    """
    from pathlib import Path

    from automl_pt.cli.report_display import print_run, print_study
    from automl_pt.files import to_json
    from automl_pt.study.report import read_study
    from automl_pt.study.run_report import is_run, read_run

    if is_run(Path(study)):
        run = read_run(Path(study))
        click.echo(to_json(run.to_dict())) if as_json else print_run(run)
    else:
        report = read_study(study, storage=storage)
        click.echo(to_json(report.to_dict())) if as_json else print_study(report)
