"""`automl-pt train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from automl_pt.cli.options import build_config, settings_options
from automl_pt.config import TrainConfig


@click.command("train")
@settings_options(TrainConfig)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Run directory.  [runs/DATASET-BACKBONE]")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per epoch, then one for the run.")
def command(config: Path | None, output: Path | None, quiet: bool, as_json: bool, **options: Any) -> int:
    """Train one model on DATASET with fixed parameters.

    DATASET is a folder, archive or table of labelled images, or a name from `automl-pt datasets`. The same command
    goes on where it was stopped.
    """
    settings = build_config(TrainConfig, config, options)

    from automl_pt.cli.display import train_display
    from automl_pt.cli.signals import stopping
    from automl_pt.files import make_folder, read_json
    from automl_pt.plugins import load_plugins
    from automl_pt.run import default_output, execute, history, open_data
    from automl_pt.training.distributed import joined

    plugins = load_plugins(settings.plugins)
    plugins.backbone(settings.backbone)
    output = make_folder(output or default_output(settings))
    with (
        joined() as group,
        stopping() as stop,
        train_display(quiet=quiet or not group.leads, as_json=as_json) as display,
    ):
        with group.leader_first():
            data = open_data(settings, output, plugins, progress=display.preparing)
        display.started(settings, data, done=history(output))

        def after_step(done: int, batches: int) -> bool:
            display.step(done, batches)
            return stop.signal is not None

        for result in execute(settings, output, data=data, plugins=plugins, after_step=after_step, group=group):
            display.epoch(result)
        if group.leads:
            display.ended(output, read_json(output / "run.json"), history(output))
    return stop.exit_code
