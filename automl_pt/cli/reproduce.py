"""`automl-pt reproduce`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from automl_pt.cli.columns import say
from automl_pt.cli.lookup import plugin_option
from automl_pt.cli.names import require_run


@click.command("reproduce")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder of the new run.  [RUN-again]")
@plugin_option
@click.option("--download", is_flag=True, help="Fetch a named dataset that is not on this machine.")
@click.option("--quiet", is_flag=True, help="Print nothing but the verdict and errors.")
def command(run: Path, output: Path | None, plugins: tuple[str, ...], download: bool, quiet: bool) -> int:
    """Run the run directory RUN again and compare: history and weights, bit for bit.

    Changes since then (versions, device, data) are printed first. The exit code is 1 if the results differ. A plugin
    file named by the run is loaded only if --plugin names it here, because a run directory may be untrusted.
    """
    require_run(run)

    from automl_pt.cli.display import train_display
    from automl_pt.plugins.manager import load_plugins
    from automl_pt.runs.reproduce import Reproduction

    reproduction = Reproduction(run, plugins=load_plugins(plugins), download=download)
    whole = Path(os.path.abspath(run))  # "." and ".." are not names
    output = output or whole.with_name(f"{whole.name}-again")
    for change in reproduction.changes():
        say(f"note: {change}", err=True)
    with train_display(quiet=quiet, as_json=False) as display:
        for result in reproduction.run(output):
            display.epoch(result)
    found = reproduction.compare(output)
    for difference in found.differences:
        say(difference)
    said = {True: "equal bit for bit", False: "different", None: "not compared, for the original has none"}
    click.echo(f"weights: {said[found.same_weights]}")
    return 0 if found.same else 1
