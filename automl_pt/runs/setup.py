"""Builds what a run trains with from its settings: device, images and network. Writes nothing."""

from __future__ import annotations

import os
from typing import Any

import torch

from automl_pt.backbone import Backbone
from automl_pt.config import Settings, TrainConfig
from automl_pt.core.errors import ConfigError
from automl_pt.data.loader import Loader
from automl_pt.data.policy import Policy, make_policy, require_policy
from automl_pt.data.prepare import Data
from automl_pt.features.head_training import frozen_start, head_training
from automl_pt.images.preprocessing import Preprocessing
from automl_pt.model.load import require_given
from automl_pt.plugins.manager import Plugins, load_plugins
from automl_pt.plugins.optimizers import Optimizer
from automl_pt.runs.network import RunNetwork, Where, network_for
from automl_pt.runs.start import settled
from automl_pt.training.device import (
    NumberFormat,
    choose_device,
    choose_precision,
    default_threads,
    gpu_out_of_reach,
    keep_freed_memory,
    prepare_device,
)
from automl_pt.training.distributed import ALONE, Group, local_device
from automl_pt.training.layout import has_channels_last
from automl_pt.training.loop import Training

#: images of a batch that is validated on a CPU, whose cache it should fit; and pixels and images of one on a GPU
EVALUATION_BATCH = 64
GPU_PIXELS, GPU_IMAGES = 2**23, 4096


def require_files(config: Settings) -> None:
    """Raise WeightsError if the file of weights in the settings does not exist."""
    if config.weights is not None:
        require_given(config.weights)


def require_possible(config: TrainConfig, plugins: Plugins) -> None:
    """Refuse a backbone, option, device or file that does not exist, before anything is read or written."""
    plugins.backbone(config.backbone, config.backbone_options)
    plugins.objective(config.objective)
    require_policy(config.tried("augmentation"), config.transforms, plugins)
    choose_device(local_device(config.device))
    require_files(config)


def set_up(config: TrainConfig) -> tuple[torch.device, NumberFormat]:
    """Set this process's threads and determinism for a run. Return the device and the number format."""
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
    plugins: Plugins | None = None,
) -> Training:
    """Return a training that stands before its first step, with the optimiser registered with `plugins`.

    It may have the network of the proxy run before it, begun again.
    Raises ConfigError if the batch is larger than the training split, PluginError if the network cannot be built.
    """
    return training_and_network(config, data, backbone, device, precision, group, plugins=plugins)[0]


def training_and_network(
    config: TrainConfig,
    data: Data,
    backbone: Backbone,
    device: torch.device,
    precision: NumberFormat,
    group: Group = ALONE,
    *,
    plugins: Plugins | None = None,
) -> tuple[Training, RunNetwork | None]:
    """Return what `new_training` does, and its network, which a proxy run can leave; None for a head on features."""
    config = settled(config, backbone, data.hints)
    plugins = plugins or load_plugins(config.plugins)
    preprocessing = choose_preprocessing(config, data, backbone)
    judged: dict[str, Any] = {
        "optimizer": plugins.named(Optimizer, config.optimizer),
        "metrics": tuple(plugins.metrics().values()),
        "objective": plugins.objective(config.objective),
        "classes": data.manifest.classes,
    }
    why_not: str | None = None
    if config.trains_on_features(group.size):
        start = frozen_start(config, data, backbone, preprocessing)
        if not isinstance(start, str):
            scales = _head_scales(config, start.body.head)
            return head_training(start, config, data, device, scales, **judged), None
        why_not = start
    policy = make_policy(
        config.augmentation,
        config.transforms,
        plugins,
        preprocessing.image_size,
        len(data.manifest.classes),
        preprocessing.pixels,
    )
    layout = has_channels_last(device, precision)
    loaders = _loaders(config, data, preprocessing, device, group, policy, channels_last=layout)
    found = network_for(config, data, backbone, preprocessing, Where(device, precision, group))
    judged |= {"precision": found.precision, "lr_scales": found.scales, "earlier": found.training}
    training = Training(found.network, *loaders, config, device=device, group=group, **judged)
    training.step.notes += [*found.said, *dict.fromkeys(note for loader in loaders for note in loader.notes)]
    if config.device == "auto" and device.type == "cpu" and (reason := gpu_out_of_reach()) is not None:
        training.step.notes.append(f"the run uses the CPU: {reason}")
    if config.precision not in ("auto", training.precision):
        lacks = f"this {device.type} device has no {config.precision}"
        training.step.notes.append(f"the run computes in {training.precision}, because {lacks}")
    if why_not is not None:
        training.step.notes.append(f"the frozen network runs in every epoch, because {why_not}")
    return training, found


def _head_scales(config: TrainConfig, head: str) -> dict[str, float] | None:
    factor = config.head_lr_factor
    return None if factor == 1 else {f"{head}.{name}": factor for name in ("weight", "bias")}


def choose_preprocessing(config: TrainConfig, data: Data, backbone: Backbone) -> Preprocessing:
    """Return the image side, and mean and standard deviation: the backbone's for photographs, else the data's own."""
    size, pixels = choose_image_size(config, data, backbone), data.manifest.pixels
    mean, std = (backbone.mean, backbone.std) if pixels.is_rgb8 else data.statistics(size)
    return Preprocessing(size, mean, std, pixels=pixels)


def choose_image_size(config: TrainConfig, data: Data, backbone: Backbone) -> int:
    """Return the image side: as requested, else the dataset's hint, else the backbone's own."""
    return config.image_size or data.hints.image_size or backbone.image_size


def _loaders(
    config: TrainConfig,
    data: Data,
    preprocessing: Preprocessing,
    device: torch.device,
    group: Group,
    policy: Policy,
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
        Loader(
            train_pixels,
            batch_size=batch_size,
            augmented_epochs=augmented,
            shuffle=True,
            policy=policy,
            balanced=config.sampling == "balanced",
            **shared,
        ),
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
