"""`automl-pt train`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from automl_pt.cli.groups import GroupedCommand
from automl_pt.cli.names import load_known
from automl_pt.cli.options import build_config, from_file, settings_options
from automl_pt.cli.working import load
from automl_pt.config import TrainConfig
from automl_pt.core.errors import DivergedError
from automl_pt.core.missing_model import diverged
from automl_pt.core.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from automl_pt.cli.display import TrainDisplay
    from automl_pt.cli.signals import Stop
    from automl_pt.data.prepare import Data
    from automl_pt.plugins.manager import Plugins


@click.command("train", cls=GroupedCommand)
@settings_options(TrainConfig)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Run directory.  [runs/DATASET-BACKBONE]")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per epoch, then one for the run.")
def command(config: Path | None, output: Path | None, quiet: bool, as_json: bool, **options: Any) -> int:
    """Train one model on DATASET with fixed parameters. The same command continues where it was stopped.

    DATASET is a folder, archive or table of labelled images, or a name from `automl-pt datasets`.
    """
    output, quiet, as_json = from_file(config, output=output, quiet=quiet, as_json=as_json).values()
    settings = build_config(TrainConfig, config, options)
    plugins = load_known(settings, output)
    load("automl_pt.runs.run", quiet=quiet or as_json)
    from automl_pt.cli.display import train_display
    from automl_pt.cli.signals import READING, STEPPING, stopping, until_told
    from automl_pt.core.files import read_json
    from automl_pt.runs.directory import Cleanup, default_output, history, require_plugins
    from automl_pt.runs.published import with_published
    from automl_pt.runs.run import execute, open_data, start_of
    from automl_pt.runs.setup import require_possible
    from automl_pt.runs.tracking import Trackers, follow
    from automl_pt.training.distributed import joined

    require_plugins(output := output or default_output(settings), plugins)
    settings, said = with_published(settings, plugins)
    require_possible(settings, plugins)
    trackers = Trackers(plugins, settings.trackers)
    with (
        joined() as group,
        Cleanup(output) if group.leads else nullcontext(),
        stopping(READING) as stop,
        train_display(quiet=quiet, as_json=as_json, mute=group.rank, metrics=plugins.metrics()) as display,
    ):
        with group.leader_first():
            start_of(settings, output, plugins, tell=display.network)
            preparing = until_told(stop, display.preparing)
            data = open_data(settings, output, plugins, progress=preparing, processes=group.size)
        stop.says = STEPPING
        _show_start(display, settings, data, plugins, output, said)

        step, told = _after_step(display, stop), trackers if group.leads else None
        results = execute(settings, output, data=data, plugins=plugins, after_step=step, group=group)
        for result in follow(results, told, settings.model_dump(mode="json"), output, history(output)):
            display.epoch(result)
        if group.leads:
            display.ended(output, read_json(output / "run.json"), history(output))
            require_finite(output, settings)
    return stop.exit_code


def _after_step(display: TrainDisplay, stop: Stop) -> Callable[[int, int], bool]:
    """Return what shows a step's progress and says whether the training is to end."""

    def after_step(done: int, batches: int) -> bool:
        display.step(done, batches)
        return stop.signal is not None

    return after_step


def _show_start(
    display: TrainDisplay, settings: TrainConfig, data: Data, plugins: Plugins, output: Path, said: tuple[str, ...]
) -> None:
    """Show what is trained: image size, device, and the epochs finished earlier."""
    from automl_pt.runs.directory import history
    from automl_pt.runs.setup import choose_image_size
    from automl_pt.training.device import choose_device, describe

    size = choose_image_size(settings, data, plugins.backbone(settings.backbone, settings.backbone_options))
    device = describe(choose_device(settings.device))
    display.started(settings, data, size=size, device=device, done=history(output), said=said)


def require_finite(output: Path, settings: TrainConfig) -> None:
    """Raise DivergedError, which names what was kept, if the training loss was not finite."""
    from automl_pt.core.files import read_json
    from automl_pt.model.directory import INFO, read_info
    from automl_pt.runs.directory import history

    if read_json(output / "run.json")["reason"] != "diverged":
        return
    left = "there is no model"
    if (output / INFO).exists():
        left = f"the model is that of epoch {read_info(output)[0].metrics['epoch']}"
    raise DivergedError(
        f"the training {diverged(len(history(output)))}: {left}",
        given=f"{printable(output)}, learning rate {settings.lr:g}",
        remedy="train again with a lower --lr, into another --output",
    )
