"""One run, from names to a run directory.

A run directory holds the model directory's files (the best epoch so far), `run.json` (what made it, and how it ended),
`manifest.json` (which images, in which split), `history.jsonl` (one line an epoch) and `checkpoints/`.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from automl_pt.backbone import Backbone
from automl_pt.build import build_model, head_parameters
from automl_pt.config import TrainConfig, make
from automl_pt.data.loader import Loader
from automl_pt.data.manifest import require_asked
from automl_pt.data.memory import available_memory
from automl_pt.data.prepare import Data, prepare, split_settings
from automl_pt.data.prepare import Progress as DataProgress
from automl_pt.errors import CheckpointError, ConfigError
from automl_pt.files import atomic_write, make_folder, read_json, to_json, write_json
from automl_pt.images.preprocessing import Preprocessing
from automl_pt.locks import locked
from automl_pt.model.directory import save_model
from automl_pt.model.info import ModelInfo
from automl_pt.plugins import Plugins, load_plugins
from automl_pt.training.checkpoint import Checkpoints, require_same
from automl_pt.training.device import NumberFormat, choose_device, choose_precision, default_threads, describe
from automl_pt.training.distributed import ALONE, Group, local_device
from automl_pt.training.early_stopping import Reason
from automl_pt.training.result import EpochResult
from automl_pt.training.trainer import AfterStep, Training, go_on
from automl_pt.training.trainer import train as train_epochs

#: settings that say where and with what a run is computed, not what it computes; data are compared by fingerprint
PLACE = ("dataset", "device", "threads", "plugins", "root", "download", "checkpoint_minutes", "cache_dir", "cuda_graph")
EVALUATION_BATCH = 64
#: reasons after which there is nothing left to do
ENDED = ("completed", "patience", "diverged")


def train(
    dataset: str, *, output: str | Path | None = None, plugins: Plugins | None = None, **settings: Any
) -> Iterator[EpochResult]:
    """Train one model with fixed parameters, and yield each epoch's result as it is known.

    `settings` are the fields of TrainConfig, which are the options of `automl-pt train`. The run directory `output`
    (default: `runs/DATASET-BACKBONE`) is a model directory too; the same call again goes on where the last one ended.
    Raises ConfigError, DatasetError and the other errors of `automl_pt.errors` before the first epoch.
    """
    config = make(TrainConfig, {"dataset": dataset, **settings})
    plugins = plugins or load_plugins(config.plugins)
    output = Path(output) if output is not None else default_output(config)
    make_folder(output)
    return execute(config, output, data=open_data(config, output, plugins), plugins=plugins)


def open_data(config: TrainConfig, output: Path, plugins: Plugins, progress: DataProgress | None = None) -> Data:
    """Freeze the split in a run directory, or take the one that is there.

    Raises StudyError when a call that never came to its first epoch left a split that was drawn with other settings.
    """
    manifest = output / "manifest.json"
    data = prepare(config, plugins, manifest=manifest, progress=progress)
    if not (output / "run.json").exists():
        require_asked(data.manifest, split_settings(config), manifest)
    return data


def default_output(config: TrainConfig) -> Path:
    """Return the run directory used where none is named."""
    return Path("runs") / f"{Path(config.dataset).stem}-{config.backbone.replace('/', '-')}"


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
        except Exception as failure:
            reason, error = "failed", f"{type(failure).__name__}: {failure}"
            raise
        finally:
            if group.leads:
                finish(output, run.training.progress.reason or reason, error=error)
                if run.training.progress.reason is not None:
                    run.checkpoints.remove()


def history(output: Path) -> list[EpochResult]:
    """Return the epochs that a run directory's history.jsonl tells of; none when there is no run."""
    path = output / "history.jsonl"
    if not path.exists():
        return []
    return [EpochResult.from_dict(json.loads(line)) for line in path.read_text().splitlines()]


def finish(output: Path, reason: Reason, *, error: str | None = None) -> None:
    """Record in `output` why the run ended; a run that ended by itself keeps its own reason."""
    path = output / "run.json"
    record = read_json(path)
    if record["reason"] in ENDED:  # kept: whoever paused a run that had ended by itself did not change why
        return
    ended = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(path, {**record, "reason": reason, "error": error, "ended": ended})


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
        results = train_epochs(
            self.training, checkpoints=self.checkpoints, save_model=self.save_model, after_step=after_step
        )
        for result in results:
            self.write_history()
            yield result

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
    backbone, device = plugins.backbone(config.backbone), choose_device(local_device(config.device))
    torch.set_num_threads(config.threads or default_threads())
    if config.deterministic:
        _ask_for_determinism()
    precision = choose_precision(config.precision, device)
    preprocessing = Preprocessing(choose_image_size(config, data, backbone), backbone.mean, backbone.std)
    record = {**_record(config, data, plugins, device, precision), "processes": group.size}
    checkpoints = Checkpoints(output / "checkpoints")
    before = _before(output, record)
    if before.get("reason") in ENDED:
        checkpoints.remove()
        return None
    channels_last = precision != "fp32" or (backbone.channels_last and device.type == "cpu")
    loaders = _loaders(config, data, preprocessing, device, group, channels_last=channels_last)
    model = build_model(
        backbone,
        len(data.manifest.classes),
        preprocessing.image_size,
        pretrained=config.pretrained,
        weights=Path(config.weights) if config.weights else None,
        seed=config.seed,
    )
    if config.freeze == "backbone":
        head = head_parameters(model, backbone)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in head)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = model.to(device, memory_format=layout)  # type: ignore[call-overload]
    training = Training(model, *loaders, config, device=device, precision=precision, group=group)
    training.fit_into(available_memory())
    training.restore(checkpoints)
    training.step.notes += _changes(before, record)
    group.wait()  # nobody replaces a checkpoint that another process is still reading
    # written when nothing can be wrong with the settings any more: a mistake leaves no run behind that bars the way
    if group.leads:
        write_json(output / "run.json", {**record, "started": before.get("started", record["started"])})
    return Run(config, output, _info(record, data, preprocessing, backbone, device), training, checkpoints)


def _changes(before: dict[str, Any], record: dict[str, Any]) -> list[str]:
    """Say what a run is gone on with that it was not begun with, and that may change its last bits."""
    if not before:
        return []
    names = ("device", "precision", "threads", "versions")
    changed = [
        f"{name} was {before.get(name)} and is {record[name]}" for name in names if before.get(name) != record[name]
    ]
    return [f"not bit for bit as an unbroken run: {change}" for change in changed]


def choose_image_size(config: TrainConfig, data: Data, backbone: Backbone) -> int:
    """Return the side to train at: as asked, else the dataset's hint, else the backbone's own."""
    return config.image_size or data.hints.image_size or backbone.image_size


def _loaders(
    config: TrainConfig,
    data: Data,
    preprocessing: Preprocessing,
    device: torch.device,
    group: Group,
    *,
    channels_last: bool,
) -> tuple[Loader, Loader]:
    train_pixels, val_pixels = (data.pixels(split, preprocessing.image_size) for split in ("train", "val"))
    batch_size, images = config.batch_size * group.size, len(train_pixels.labels)
    if batch_size > images:
        given = f"{config.batch_size}" + (f" in each of {group.size} processes" if group.size > 1 else "")
        raise ConfigError([f"batch_size: at most the number of training images, {images}, got {given}"])
    shared: dict[str, Any] = {
        "mean": preprocessing.mean,
        "std": preprocessing.std,
        "seed": config.seed,
        "device": device,
        "hints": data.hints,
        "channels_last": channels_last,
        "share": (group.rank, group.size),
    }
    augment = config.augment == "auto"
    return (
        Loader(train_pixels, batch_size=batch_size, augment=augment, shuffle=True, **shared),
        Loader(val_pixels, batch_size=EVALUATION_BATCH, augment=False, shuffle=False, **shared),
    )


def _before(output: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Return the record of the run found in `output`, after checking that it is this one; empty where there is none."""
    path = output / "run.json"
    if not path.exists():
        return {}
    found = _read_record(path)
    keys = {key for key in record["config"] if key not in PLACE}
    wanted = {key: record["config"][key] for key in keys} | {"data": record["data"]["fingerprint"]}
    wanted["processes"] = record["processes"]
    before = {key: found["config"].get(key) for key in keys} | {"data": found["data"]["fingerprint"]}
    before["processes"] = found.get("processes", 1)
    require_same(before, wanted, output)
    return found


def _read_record(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = read_json(path)
        _ = found["config"].keys(), found["data"]["fingerprint"]
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise CheckpointError(
            "a run goes on from its own record",
            given=f"{path}: damaged, or not written by automl-pt",
            remedy="name another --output, or delete the folder to begin anew",
        ) from error
    return found


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result depends on."""
    packages = ("automl-pt", "torch", "torchvision", "timm")
    return {"python": sys.version.split()[0], **{name: version(name) for name in packages}}


def _record(
    config: TrainConfig, data: Data, plugins: Plugins, device: torch.device, precision: NumberFormat
) -> dict[str, Any]:
    return {
        "format": 1,
        "config": config.model_dump(mode="json"),
        "versions": versions(),
        "device": describe(device),
        "precision": precision,
        "threads": torch.get_num_threads(),
        "data": {
            "source": data.manifest.source,
            "fingerprint": data.manifest.fingerprint(),
            "counts": data.manifest.counts(),
            "left_out": len(data.manifest.left_out),
        },
        "plugins": [asdict(plugin) for plugin in plugins.loaded if plugin.origin != "built in"],
        "command": shlex.join(sys.argv),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "reason": None,
        "error": None,
    }


def _info(
    record: dict[str, Any], data: Data, preprocessing: Preprocessing, backbone: Backbone, device: torch.device
) -> ModelInfo:
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
        precision=record["precision"],
        device=device.type,
    )


def _ask_for_determinism() -> None:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
