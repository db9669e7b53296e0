"""One run, from names to a run directory.

A run directory holds the model directory's files (the best epoch so far), `run.json` (what made it, and how it ended),
`manifest.json` (which images, in which split), `history.jsonl` (one line an epoch) and `checkpoints/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from automl_pt.backbone import Backbone
from automl_pt.config import TrainConfig, make
from automl_pt.core.files import atomic_write, make_folder, to_json, write_json
from automl_pt.core.locks import locked
from automl_pt.data.manifest import require_asked
from automl_pt.data.memory import available_memory
from automl_pt.data.prepare import Data, prepare, split_settings
from automl_pt.data.prepare import OnProgress as OnProgress
from automl_pt.features.head_training import HeadTraining
from automl_pt.images.preprocessing import Preprocessing
from automl_pt.model.directory import save_model
from automl_pt.model.info import ModelInfo
from automl_pt.plugins.faults import networks_fault, plugins_fault
from automl_pt.plugins.manager import PluginFiles, Plugins, given_plugins, load_plugins
from automl_pt.runs.directory import (
    ENDED,
    Cleanup,
    as_begun,
    changes,
    default_output,
    earlier,
    finish,
    history,
    new_record,
    require_apart,
    require_plugins,
)
from automl_pt.runs.setup import choose_preprocessing, new_training, require_possible, set_up
from automl_pt.runs.start import Start, choose_start, fetch_weights, starts_pretrained
from automl_pt.runs.tracking import Trackers, follow
from automl_pt.training.checkpoint import Checkpoints
from automl_pt.training.distributed import ALONE, Group, processes_here
from automl_pt.training.early_stopping import Reason
from automl_pt.training.loop import AfterStep, Training, go_on
from automl_pt.training.loop import train as train_epochs
from automl_pt.training.result import EpochResult


def train(
    dataset: str, *, output: str | Path | None = None, plugins: Plugins | PluginFiles | None = None, **settings: Any
) -> Iterator[EpochResult]:
    """Train one model with fixed parameters, and yield each epoch's result as it is known.

    The first result's notes begin with those on the data: what was guessed, and which files are left out.
    `settings` are the fields of TrainConfig, which are the options of `automl-pt train`. The run directory `output`
    (default: `runs/DATASET-BACKBONE`) is a model directory too; the same call again goes on where the last one ended.
    `plugins` are plugin files, as `--plugin` takes them, or what `load_plugins` returned.
    Raises ConfigError, DatasetError and the other errors of `automl_pt.core.errors` before the first epoch. A run that
    diverges raises nothing: the `reason` of its last result is "diverged", and where that is the first epoch's the run
    directory holds no model, as `load_model` then says.
    """
    registered, files = given_plugins(plugins)
    config = make(TrainConfig, {"dataset": dataset, **settings, **({"plugins": files} if files else {})})
    plugins = registered or load_plugins(config.plugins)
    output = Path(output) if output is not None else default_output(config)
    require_plugins(output, plugins)
    require_possible(config, plugins)
    start_of(config, output, plugins)
    trackers = Trackers(plugins, config.trackers)
    tidied = Cleanup(output)
    with tidied:
        data = open_data(config, output, plugins)
    results = execute(config, output, data=data, plugins=plugins)
    return _epochs(tidied, follow(results, trackers, config, output, history(output)), data.notes)


def _epochs(tidied: Cleanup, results: Iterator[EpochResult], notes: tuple[str, ...]) -> Iterator[EpochResult]:
    """Yield the results, the first with the notes on the data before its own."""
    with tidied:
        for result in results:
            yield replace(result, notes=(*notes, *result.notes))
            notes = ()


def start_of(config: TrainConfig, output: Path, plugins: Plugins, tell: Callable[[Start], None] | None = None) -> None:
    """Settle what the run starts from, tell it, and bring pretrained weights here, before anything is made.

    A run that is there already goes on from its checkpoint as it began.
    """
    if (output / "run.json").exists():
        return
    require_apart(config, output, plugins)
    start = choose_start(config, plugins.backbone(config.backbone, config.backbone_options), plugins)
    if tell is not None:
        tell(start)
    fetch_weights([start], config, plugins, config.backbone_options)


def open_data(
    config: TrainConfig, output: Path, plugins: Plugins, progress: OnProgress | None = None, *, processes: int = 1
) -> Data:
    """Make the run directory and freeze the split in it, or take the one that is there.

    Raises OutputError when the folder cannot be written or lies among the images, StudyError when a call that never
    came to its first epoch left a split that was drawn with other settings, CheckpointError when the run found there
    is another one.
    """
    require_apart(config, output, plugins)
    make_folder(output)
    manifest = output / "manifest.json"
    data = prepare(config, plugins, manifest=manifest, progress=progress)
    if not earlier(output, config, data, processes=processes):
        require_asked(data.manifest, split_settings(config), manifest)
    return data


def execute(
    config: TrainConfig,
    output: Path,
    *,
    data: Data,
    plugins: Plugins,
    after_step: AfterStep = go_on,
    group: Group = ALONE,
) -> Iterator[EpochResult]:
    """Run `config` on `data` in `output`, yielding one result per epoch.

    A run found there is gone on with from its `last` checkpoint, bit for bit; when it has ended nothing is yielded.
    Leaving the generator early, or `after_step` returning true, pauses the run: its checkpoint stays. With several
    processes in `group` all call this with the same arguments, all get the same results, and the first alone writes.
    Raises CheckpointError when `output` holds a run with other settings, OutputError when another process works there.
    """
    make_folder(output)
    with locked(output / ".lock", wait=False) if group.leads else nullcontext():
        run = _start(config, output, data, plugins, group)
        if run is None:
            return
        reason: Reason = "interrupted"
        error: str | None = None
        try:
            run.write_history()
            yield from run.epochs(after_step)
        except (Exception, SystemExit) as failure:
            blamed = networks_fault(failure, config.backbone)
            reason, error = "failed", blamed.in_a_line() if blamed else f"{type(failure).__name__}: {failure}"
            if blamed is None:
                raise
            raise blamed from failure
        finally:
            if group.leads:
                finish(output, run.training.progress.reason or reason, error=error)
                if run.training.progress.reason is not None:
                    run.checkpoints.remove()


@dataclass
class Run:
    """A run that is set up: everything `execute` needs to step through its epochs."""

    config: TrainConfig
    output: Path
    info: ModelInfo
    training: Training
    checkpoints: Checkpoints

    def epochs(self, after_step: AfterStep) -> Iterator[EpochResult]:
        """Yield the epochs still to do; the model directory and the history are on disk before each is seen."""
        if isinstance(self.training, HeadTraining):
            yield from self._all_at_once(self.training, after_step)
            return
        results = train_epochs(
            self.training, checkpoints=self.checkpoints, save_model=self.save_model, after_step=after_step
        )
        for result in results:
            self.write_history()
            yield result

    def _all_at_once(self, training: HeadTraining, after_step: AfterStep) -> Iterator[EpochResult]:
        """Yield the epochs of a head on features, which take less than saving them: what is stopped begins again."""
        kept: list[tuple[Mapping[str, Tensor], EpochResult, list[EpochResult]]] = []

        def keep(state: Mapping[str, Tensor], result: EpochResult, past: list[EpochResult]) -> None:
            kept[:] = [({name: tensor.clone() for name, tensor in state.items()}, result, past)]

        results = list(train_epochs(training, save_model=keep, after_step=after_step))
        if not results or results[-1].reason is None:
            return
        for state, result, past in kept:
            self.save_model({**training.start.state, **state}, result, past)
        self.write_history()
        yield from results

    def write_history(self) -> None:
        """Write one line for each epoch that is done."""
        if not self.training.group.leads:
            return
        lines = (to_json(entry) + "\n" for entry in self.training.progress.history)
        atomic_write(self.output / "history.jsonl", "".join(lines))

    def save_model(self, state: Mapping[str, Tensor], result: EpochResult, past: list[EpochResult]) -> None:
        """Make this epoch's weights the model of the run directory."""
        ema = result.ema_val_loss if self.config.keep == "best" else None
        use_ema = ema is not None and ema < result.val_loss
        metrics = {
            "epoch": result.epoch,
            "val_loss": result.ema_val_loss if use_ema else result.val_loss,
            "val_accuracy": result.ema_val_accuracy if use_ema else result.val_accuracy,
            "weights": "ema" if use_ema else "raw",
        }
        info = replace(self.info, metrics=metrics, history=[entry.to_dict() for entry in past])
        save_model(self.output, state, info)


def _start(config: TrainConfig, output: Path, data: Data, plugins: Plugins, group: Group) -> Run | None:
    """Set up the run in `output`, as far as it has come; return None when it has ended."""
    backbone = plugins.backbone(config.backbone, config.backbone_options)
    device, precision = set_up(config)
    before = earlier(output, config, data, processes=group.size)
    config = as_begun(config, before, pretrained=starts_pretrained(config, backbone, data.hints))
    record = new_record(config, data, plugins, device, precision, processes=group.size)
    checkpoints = Checkpoints(output / "checkpoints")
    if before.get("reason") in ENDED:
        checkpoints.remove()
        return None
    training = new_training(config, data, backbone, device, precision, group)
    if before:
        training.step.notes.clear()  # how its weights were read was said when it began
    training.restore(checkpoints)
    # after what a checkpoint says of micro-batches: there may be less memory now than when it was written
    training.fit_into(available_memory() // processes_here())
    training.step.notes += changes(before, record)
    group.wait()  # nobody replaces a checkpoint that another process is still reading
    # written when nothing can be wrong with the settings any more: a mistake leaves no run behind that bars the way
    if group.leads:
        write_json(output / "run.json", {**record, "started": before.get("started", record["started"])})
    preprocessing = choose_preprocessing(config, data, backbone)
    with plugins_fault("a backbone's recipe(num_classes, image_size) failed", whose=backbone.name):
        info = model_info(record, data, preprocessing, backbone, device)
    if isinstance(training, HeadTraining):
        info = replace(info, precision=training.start.splits.precision)
    return Run(config, output, info, training, checkpoints)


def model_info(
    record: dict[str, Any], data: Data, preprocessing: Preprocessing, backbone: Backbone, device: torch.device
) -> ModelInfo:
    """Return what a run's model directory says of its model, figures and history aside."""
    classes, size = len(data.manifest.classes), preprocessing.image_size
    return ModelInfo(
        backbone=record["config"]["backbone"],
        classes=tuple(data.manifest.classes),
        preprocessing=preprocessing,
        config=record["config"],
        metrics={},
        history=[],
        versions=record["versions"],
        data=record["data"],
        plugins=record["plugins"],
        recipe=backbone.recipe(classes, size) if backbone.recipe else None,
        weights_license=backbone.weights_license if record["config"]["pretrained"] else None,
        weights_sha256=backbone.weights_sha256 if record["config"]["pretrained"] else None,
        precision=record["precision"],
        device=device.type,
    )
