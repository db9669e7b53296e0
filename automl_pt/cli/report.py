"""`automl-pt report`."""

from __future__ import annotations

from pathlib import Path

import click

from automl_pt.cli.columns import say


@click.command("report")
@click.argument("studies", nargs=-1, required=True, metavar="STUDY...")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write one page that needs nothing else.")
@click.option("--force", is_flag=True, help="Let --html replace a file that automl-pt did not write.")
@click.option("--storage", help="URL of the storage, where it is not study.db in the study's folder.")
@click.option("--device", default="auto", show_default=True, help="Where the model runs: auto, cpu, cuda[:n] or mps.")
@click.option("--plugin", "plugins", multiple=True, help="A plugin file to load. May be given several times.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with every figure of the page.")
def command(
    studies: tuple[str, ...],
    html: Path | None,
    force: bool,
    storage: str | None,
    device: str,
    plugins: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show the trials of STUDY, finished or running, best first; of a single run, its epochs.

    STUDY is a name in studies/, a study's folder, or a run directory. For --html and --json the model is run on the
    validation images, to include mistakes, confusions and calibration.

    Of several studies one table, and with --html one page, compares the figures and all trials.
    """
    from automl_pt.cli.report_display import print_run, print_study
    from automl_pt.plugins.manager import load_plugins
    from automl_pt.reporting.html.marked import require_own_page
    from automl_pt.reporting.run import is_run, read_run
    from automl_pt.reporting.study import find_study, read_study

    if html is not None:
        require_own_page(html, force=force)
    for study in studies:
        if not is_run(Path(study)):
            find_study(study)
    study = studies[0]
    if len(studies) > 1:
        _several(studies, html, storage, as_json)
    elif html is not None or as_json:
        _whole(study, html, storage, device, plugins, as_json)
    elif is_run(Path(study)):
        print_run(read_run(Path(study)), metrics=load_plugins(plugins).metrics())
    else:
        print_study(read_study(study, storage=storage), metrics=load_plugins(plugins).metrics())


def _several(studies: tuple[str, ...], html: Path | None, storage: str | None, as_json: bool) -> None:
    """Print the figures of several studies, or write the page that compares their trials."""
    from automl_pt.cli.report_display import print_several
    from automl_pt.core.files import to_json
    from automl_pt.reporting.sections.write import read_several, write_page

    reports, content = read_several(studies, storage=storage)
    if html is not None:
        write_page(content, html)
    if as_json:
        click.echo(to_json({"studies": [report.to_dict() for report in reports], "sections": content.values}))
    elif html is not None:
        say(f"{html}: open it in a browser")
    else:
        print_several(content.values)


def _whole(
    study: str, html: Path | None, storage: str | None, device: str, plugins: tuple[str, ...], as_json: bool
) -> None:
    """Collect every section, write the page if requested, and print the values or the page's path."""
    from automl_pt.cli.working import working
    from automl_pt.core.files import to_json
    from automl_pt.plugins.manager import load_plugins
    from automl_pt.reporting.sections.write import read_content, write_page

    with working("running the model on the validation images", quiet=as_json):
        report, content = read_content(study, storage=storage, device=device, plugins=load_plugins(plugins))
    if html is not None:
        write_page(content, html)
    if as_json:
        click.echo(to_json({**report.to_dict(), "sections": content.values}))
    else:
        say(f"{html}: open it in a browser")
