"""What a run trains with, made of its settings: device, images and network. Nothing is written here."""

from __future__ import annotations

import os
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from automl_pt.backbone import Backbone
from automl_pt.backbones.build import build_model, head_parameters
from automl_pt.backbones.network_contract import require_trainable
from automl_pt.backbones.parameter_groups import freeze, lr_scales
from automl_pt.config import Settings, TrainConfig
from automl_pt.core.errors import ConfigError
from automl_pt.data.loader import Loader
from automl_pt.data.prepare import Data
from automl_pt.features.head_training import frozen_start, head_training, trains_on_features
from automl_pt.features.linear_probe import start_from_probe
from automl_pt.images.preprocessing import Preprocessing
from automl_pt.model.load import given_weights, require_given
from automl_pt.plugins.manager import Plugins
from automl_pt.runs.start import settled
from automl_pt.training.cpu.allocator import keep_freed_memory
from automl_pt.training.device import (
    NumberFormat,
    choose_device,
    choose_precision,
    default_threads,
    gpu_out_of_reach,
    prepare_device,
)
from automl_pt.training.distributed import ALONE, Group, local_device
from automl_pt.training.layout import arrange, has_channels_last
from automl_pt.training.loop import Training
from automl_pt.training.rehearsal import rehearse

#: images of a batch that is validated on a CPU, whose cache it should fit; and pixels and images of one on a GPU
EVALUATION_BATCH = 64
GPU_PIXELS, GPU_IMAGES = 2**23, 4096


def require_files(config: Settings) -> None:
    """Raise WeightsError where the settings name a file of weights that is not there."""
    if config.weights is not None:
        require_given(config.weights)


def require_possible(config: TrainConfig, plugins: Plugins) -> None:
    """Refuse, before anything is read or written, a backbone, option, device or file that is not there."""
    plugins.backbone(config.backbone, config.backbone_options)
    choose_device(local_device(config.device))
    require_files(config)


def set_up(config: TrainConfig) -> tuple[torch.device, NumberFormat]:
    """Ready this process for a run: threads and determinism as asked. Return the device and the number format."""
    device = choose_device(local_device(config.device))
    prepare_device(device)
    torch.set_num_threads(config.threads or default_threads())
    if device.type == "cpu":
        keep_freed_memory()
    if config.deterministic:
        ask_for_determinism()
    return device, choose_precision(config.precision, device)


def new_training(
    config: TrainConfig,
    data: Data,
    backbone: Backbone,
    device: torch.device,
    precision: NumberFormat,
    group: Group = ALONE,
    *,
    is_proxy: bool = False,
) -> Training:
    """Return a training that stands before its first step.

    A trial's proxy runs and its run start from the same network, which the first builds for all of them.
    Raises ConfigError when the batch is larger than the training split, PluginError when the network cannot be built.
    """
    config = settled(config, backbone, data.hints)
    preprocessing = choose_preprocessing(config, data, backbone)
    why_not: str | None = None
    if trains_on_features(config, group.size):
        start = frozen_start(config, data, backbone, preprocessing)
        if not isinstance(start, str):
            return head_training(start, config, data, device, _head_scales(config, start.body.head))
        why_not = start
    loaders = _loaders(config, data, preprocessing, device, group, channels_last=has_channels_last(device, precision))
    key = _key(config, data, device, precision)
    ready = _READY.pop() if _READY else None
    if ready is None or ready.key != key or ready.backbone is not backbone:
        ready = _ready(key, config, data, backbone, device, precision)
    if is_proxy and (kept := ready.copy()) is not None:
        _READY.append(kept)
    model, scales, said = ready.network, ready.scales, ready.said
    training = Training(model, *loaders, config, device=device, precision=precision, group=group, lr_scales=scales)
    training.step.notes += [*said, *dict.fromkeys(note for loader in loaders for note in loader.notes)]
    if config.device == "auto" and device.type == "cpu" and (reason := gpu_out_of_reach()) is not None:
        training.step.notes.append(f"the run uses the CPU: {reason}")
    if why_not is not None:
        training.step.notes.append(f"the frozen network runs in every epoch, because {why_not}")
    return training


@dataclass(frozen=True)
class _Ready:
    """A network that stands before its first step, for the settings in `key`."""

    key: str
    backbone: Backbone
    network: nn.Module
    scales: dict[str, float] | None
    said: tuple[str, ...]

    def copy(self) -> _Ready | None:
        """Return it with a copy of the network; None where that cannot be copied."""
        try:
            return replace(self, network=deepcopy(self.network))
        except Exception:  # what a plugin's network holds: it is built again instead
            return None


#: what the last proxy run left for the next one, or for the run; one at most
_READY: list[_Ready] = []


def _key(config: TrainConfig, data: Data, device: torch.device, precision: NumberFormat) -> str:
    """Name what a network depends on: all settings but the augmentation, in which a proxy run differs from its run."""
    return f"{config.model_dump_json(exclude={'augment'})} {data.manifest.fingerprint()} {device} {precision}"


def _ready(
    key: str, config: TrainConfig, data: Data, backbone: Backbone, device: torch.device, precision: NumberFormat
) -> _Ready:
    preprocessing, said = choose_preprocessing(config, data, backbone), list[str]()
    side, classes = preprocessing.image_size, len(data.manifest.classes)
    model = build_model(
        backbone,
        classes,
        side,
        pretrained=bool(config.pretrained),
        weights=given_weights(config.weights) if config.weights else None,
        seed=config.seed,
        tell=said.append,
    )
    require_trainable(model, backbone.name)
    if config.head == "probe":
        start_from_probe(model, backbone, config, data, preprocessing)
    scales = choose_parameters(model, backbone, config)
    model = arrange(model, device, precision)
    channels_last = has_channels_last(device, precision)
    rehearse(model, backbone.name, classes, side, device=device, precision=precision, channels_last=channels_last)
    return _Ready(key, backbone, model, scales, tuple(said))


def _head_scales(config: TrainConfig, head: str) -> dict[str, float] | None:
    factor = config.head_lr_factor
    return None if factor == 1 else {f"{head}.{name}": factor for name in ("weight", "bias")}


def choose_preprocessing(config: TrainConfig, data: Data, backbone: Backbone) -> Preprocessing:
    """Return the side to train at, and the mean and standard deviation that the backbone wants."""
    return Preprocessing(choose_image_size(config, data, backbone), backbone.mean, backbone.std)


def choose_image_size(config: TrainConfig, data: Data, backbone: Backbone) -> int:
    """Return the side to train at: as asked, else the dataset's hint, else the backbone's own."""
    return config.image_size or data.hints.image_size or backbone.image_size


def choose_parameters(model: nn.Module, backbone: Backbone, config: TrainConfig) -> dict[str, float] | None:
    """Freeze what the settings say, and return the factors on the learning rate where they are not all 1."""
    if config.freeze == "backbone":
        head = head_parameters(model, backbone)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in head)
    if config.freeze_groups:
        freeze(model, backbone, config.freeze_groups)
    if config.layer_decay == config.head_lr_factor == 1:
        return None
    return lr_scales(model, backbone, config.layer_decay, config.head_lr_factor)


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
    augmented, validated = config.augmented_epochs, evaluation_batch(preprocessing.image_size, device)
    return (
        Loader(train_pixels, batch_size=batch_size, augmented_epochs=augmented, shuffle=True, **shared),
        Loader(val_pixels, batch_size=validated, augmented_epochs=0, shuffle=False, **shared),
    )


def evaluation_batch(image_size: int, device: torch.device) -> int:
    """Return how many images are validated at once: on a GPU by their pixels, so that small images fill it, too."""
    if device.type == "cpu":
        return EVALUATION_BATCH
    return max(EVALUATION_BATCH, min(GPU_IMAGES, GPU_PIXELS // image_size**2))


def ask_for_determinism() -> None:
    """Have PyTorch use deterministic operations only, and raise for those that have no such form."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
