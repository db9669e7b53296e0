"""Runs one training, from names to a run directory.

A run directory holds the model directory's files (the best epoch so far), `run.json` (settings, environment, end),
`manifest.json` (images and splits), `history.jsonl` (one line per epoch) and `checkpoints/`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from automl_pt.backbone import Backbone
from automl_pt.backbones.options import CHANNELS, takes
from automl_pt.config import TrainConfig, make
from automl_pt.core.files import atomic_write, make_folder, to_json, write_json
from automl_pt.core.locks import locked
from automl_pt.data.manifest import require_asked
from automl_pt.data.memory import available_memory
from automl_pt.data.prepare import Data, OnProgress, prepare, split_settings
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
    require_no_rest,
    require_plugins,
)
from automl_pt.runs.published import with_published
from automl_pt.runs.setup import choose_preprocessing, new_training, require_possible, set_up
from automl_pt.runs.start import Start, choose_start, fetch_weights, starts_pretrained
from automl_pt.runs.tracking import Trackers, follow
from automl_pt.training.checkpoint import Checkpoints
from automl_pt.training.class_weights import require_classes
from automl_pt.training.distributed import ALONE, Group, processes_here
from automl_pt.training.early_stopping import Reason
from automl_pt.training.evaluation import require_value
from automl_pt.training.loop import AfterStep, Training, go_on
from automl_pt.training.loop import train as train_epochs
from automl_pt.training.result import EpochResult

#: of a run's time: what saving may take
SAVING_SHARE = 0.005


def train(
    dataset: str, *, output: str | Path | None = None, plugins: Plugins | PluginFiles | None = None, **settings: Any
) -> Iterator[EpochResult]:
    """Train with the fields of TrainConfig, and yield each epoch's result.

    `automl_pt.train` has the fields as keywords, and the documentation.
    """
    registered, files = given_plugins(plugins)
    config = make(TrainConfig, {"dataset": dataset, **settings, **({"plugins": files} if files else {})})
    plugins = registered or load_plugins(config.plugins)
    output = Path(output) if output is not None else default_output(config)
    require_plugins(output, plugins)
    config, said = with_published(config, plugins)
    require_possible(config, plugins)
    start_of(config, output, plugins)
    trackers = Trackers(plugins, config.trackers)
    tidied = Cleanup(output)
    with tidied:
        data = open_data(config, output, plugins)
    results = execute(config, output, data=data, plugins=plugins)
    return _epochs(
        tidied, follow(results, trackers, config.model_dump(mode="json"), output, history(output)), (*said, *data.notes)
    )


def _epochs(tidied: Cleanup, results: Iterator[EpochResult], notes: tuple[str, ...]) -> Iterator[EpochResult]:
    """Yield the results, the first with the notes on the data before its own."""
    with tidied:
        for result in results:
            yield replace(result, notes=(*notes, *result.notes))
            notes = ()


def start_of(config: TrainConfig, output: Path, plugins: Plugins, tell: Callable[[Start], None] | None = None) -> None:
    """Decide and report what the run starts from, and fetch pretrained weights, before anything is created.

    An existing run resumes from its checkpoint with its original start.
    """
    if (output / "run.json").exists():
        return
    require_no_rest(output)
    require_apart(config, output, plugins)
    start = choose_start(config, plugins.backbone(config.backbone, config.backbone_options), plugins)
    if tell is not None:
        tell(start)
    fetch_weights([start], config, plugins, config.backbone_options)


def open_data(
    config: TrainConfig, output: Path, plugins: Plugins, progress: OnProgress | None = None, *, processes: int = 1
) -> Data:
    """Create the run directory and freeze the split in it, or use the existing one.

    Raises OutputError if the folder cannot be written or is among the images, StudyError if a call that never
    finished an epoch left a split with other settings, CheckpointError if the existing run
    is another one.
    """
    require_apart(config, output, plugins)
    make_folder(output)
    manifest = output / "manifest.json"
    data = prepare(config, plugins, manifest=manifest, progress=progress)
    require_classes(config.class_weights, data.manifest.classes)
    require_value(plugins.objective(config.objective), len(data.manifest.classes))
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
    worth_saving: float = math.inf,
    must_save: Callable[[int], bool] = lambda epoch: False,
) -> Iterator[EpochResult]:
    """Run `config` on `data` in `output`, yielding one result per epoch.

    Model, checkpoint and history are written so rarely that it takes 0.5 % of the time, and after the epochs that
    `must_save` names, and when the run ends or is paused.

    An existing run resumes from its `last` checkpoint, bit for bit; nothing is yielded if it has ended.
    Closing the generator early, or `after_step` returning true, pauses the run: its checkpoint stays. With several
    processes in `group` all call this with the same arguments and get the same results, and only the first writes.
    A run of a head on features is written when it has ended; one whose cost is above `worth_saving` then leaves its
    history, but no model.
    Raises CheckpointError if `output` holds a run with other settings, OutputError if another process uses it.
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
            yield from run.epochs(after_step, must_save, worth_saving)
        except (Exception, SystemExit) as failure:
            blamed = networks_fault(failure, config.backbone)
            reason, error = "failed", blamed.in_a_line() if blamed else f"{type(failure).__name__}: {failure}"
            if blamed is None:
                raise
            raise blamed from failure
        finally:
            if group.leads:
                notes = [note for entry in run.training.progress.history for note in entry["notes"]]
                ended = run.training.progress.reason or reason
                finish(output, ended, error=error, notes=[*notes, *run.training.step.notes])
                if run.training.progress.reason is not None:
                    run.checkpoints.remove()


@dataclass
class Run:
    """A run that is set up: everything `execute` needs for its epochs."""

    config: TrainConfig
    output: Path
    info: ModelInfo
    training: Training
    checkpoints: Checkpoints

    def epochs(
        self, after_step: AfterStep, must_save: Callable[[int], bool], worth_saving: float = math.inf
    ) -> Iterator[EpochResult]:
        """Yield the remaining epochs; those that `must_save` names are on disk before they are yielded."""
        if isinstance(self.training, HeadTraining):
            yield from self._all_at_once(self.training, after_step, worth_saving)
            return
        yield from train_epochs(
            self.training,
            checkpoints=self.checkpoints,
            save_model=self.save_model,
            after_step=after_step,
            share=SAVING_SHARE,
            must_save=must_save,
            after_save=self.write_history,
        )

    def _all_at_once(self, training: HeadTraining, after_step: AfterStep, worth_saving: float) -> Iterator[EpochResult]:
        """Yield the epochs of a head on features, which are faster than saving; if interrupted, they start again."""
        kept: list[tuple[Mapping[str, Tensor], EpochResult, list[EpochResult]]] = []

        def keep(state: Mapping[str, Tensor], result: EpochResult, past: list[EpochResult]) -> None:
            kept[:] = [({name: tensor.clone() for name, tensor in state.items()}, result, past)]

        results = list(train_epochs(training, save_model=keep, after_step=after_step))
        if not results or results[-1].reason is None:
            return
        for state, result, past in kept:
            if not self._cost(result) > worth_saving:
                self.save_model({**training.start.state, **state}, result, past)
        self.write_history()
        yield from results

    def write_history(self) -> None:
        """Write one line for each finished epoch."""
        if not self.training.group.leads:
            return
        lines = (to_json(entry) + "\n" for entry in self.training.progress.history)
        atomic_write(self.output / "history.jsonl", "".join(lines))

    def save_model(self, state: Mapping[str, Tensor], result: EpochResult, past: list[EpochResult]) -> None:
        """Make this epoch's weights the model of the run directory."""
        use_ema = result.keeps_average(self.config.keep)
        values = {f"val_{name}": value for name, value in result.kept_values(self.config.keep).items()}
        metrics = {"epoch": result.epoch, **values, "weights": "ema" if use_ema else "raw"}
        info = replace(self.info, metrics=metrics, history=[entry.to_dict() for entry in past])
        save_model(self.output, state, info)

    def _cost(self, result: EpochResult) -> float:
        """Return what orders this epoch's weights among those of other trials, the lower the better."""
        return result.kept_values(self.config.keep)["loss"] if result.cost is None else result.cost


def _start(config: TrainConfig, output: Path, data: Data, plugins: Plugins, group: Group) -> Run | None:
    """Set up the run in `output`, resumed if it exists; return None if it has ended."""
    backbone = plugins.backbone(config.backbone, config.backbone_options)
    device, precision = set_up(config)
    before = earlier(output, config, data, processes=group.size)
    config = as_begun(config, before, pretrained=starts_pretrained(config, backbone, data.hints))
    record = new_record(config, data, plugins, device, precision, processes=group.size)
    checkpoints = Checkpoints(output / "checkpoints")
    if before.get("reason") in ENDED:
        checkpoints.remove()
        return None
    training = new_training(config, data, backbone, device, precision, group, plugins=plugins)
    if not isinstance(training, HeadTraining):
        record["precision"] = training.precision
    if before:
        training.step.notes.clear()  # how its weights were read was reported at its start
    training.restore(checkpoints)
    # after the checkpoint's micro-batch size, because less memory may be free now
    training.fit_into(available_memory() // processes_here())
    training.step.notes += changes(before, record)
    group.wait()  # do not replace a checkpoint that another process is still reading
    # written last, so that an invalid config does not leave a run that blocks the next one
    if group.leads:
        write_json(output / "run.json", {**record, "started": before.get("started", record["started"])})
    preprocessing = choose_preprocessing(config, data, backbone)
    with plugins_fault("a backbone's recipe(num_classes, image_size) failed", whose=backbone.name):
        info = model_info(record, data, preprocessing, backbone, device)
    if isinstance(training, HeadTraining):
        info = replace(info, precision=training.start.splits.precision)
    return Run(config, output, info, training, checkpoints)


def _recipe(backbone: Backbone, classes: int, rule: Preprocessing) -> str | None:
    """Return the lines that build the network without this package; None where the backbone has none for it."""
    make: Callable[..., str] | None = backbone.recipe
    if make is None or rule.pixels.channels == 3:
        return None if make is None else make(classes, rule.image_size)
    return make(classes, rule.image_size, in_channels=rule.pixels.channels) if takes(make, CHANNELS) else None


def model_info(
    record: dict[str, Any], data: Data, preprocessing: Preprocessing, backbone: Backbone, device: torch.device
) -> ModelInfo:
    """Return the content of a run's model directory, except figures and history."""
    classes = len(data.manifest.classes)
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
        recipe=_recipe(backbone, classes, preprocessing),
        weights_license=backbone.weights_license if record["config"]["pretrained"] else None,
        weights_sha256=backbone.weights_sha256 if record["config"]["pretrained"] else None,
        precision=record["precision"],
        device=device.type,
    )
