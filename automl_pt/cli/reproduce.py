"""`automl-pt reproduce`."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command("reproduce")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder of the new run.  [RUN-again]")
@click.option("--quiet", is_flag=True, help="Print nothing but the verdict and errors.")
def command(run: Path, output: Path | None, quiet: bool) -> int:
    """Run the run directory RUN again and compare: history and weights, bit for bit.

    What has changed since (versions, device, data) is said first. Exits with 1 when the results differ.
    """
    from automl_pt.cli.display import train_display
    from automl_pt.reproduce import Reproduction

    reproduction = Reproduction(run)
    whole = Path(os.path.abspath(run))  # "." and ".." are no names
    output = output or whole.with_name(f"{whole.name}-again")
    for change in reproduction.changes():
        click.echo(f"note: {change}", err=True)
    with train_display(quiet=quiet, as_json=False) as display:
        for result in reproduction.run(output):
            display.epoch(result)
    found = reproduction.compare(output)
    for difference in found.differences:
        click.echo(difference)
    said = {True: "equal bit for bit", False: "different", None: "not compared, for the original has none"}
    click.echo(f"weights: {said[found.same_weights]}")
    return 0 if found.same else 1
