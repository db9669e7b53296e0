"""`automl-pt report`."""

from __future__ import annotations

import click


@click.command("report")
@click.argument("study")
@click.option("--storage", help="The storage's URL, where it has a password.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def command(study: str, storage: str | None, as_json: bool) -> None:
    """Show what STUDY found, or has found so far: its trials, best first.

    STUDY is a name in studies/ or a folder's path.
    """
    from automl_pt.report import read_study

    report = read_study(study, storage=storage)
    if as_json:
        from automl_pt.files import to_json

        click.echo(to_json(report.to_dict()))
    else:
        from automl_pt.cli.report_display import print_study

        print_study(report)
