"""The ranking loss of trials at a rung: the validation loss with each batch's own normalisation statistics.

Early in training the running statistics of batch normalisation lag behind the weights, by an amount that depends on
learning rate and batch size, so the plain validation loss reflects the lag more than the weights. Measured on three
datasets (`benchmarks/search_efficiency.py`), its rank correlation with the final order is 0.3 after an epoch, and 0.9
without the lag.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automl_pt.backbones.build import build_model
from automl_pt.config import TrainConfig
from automl_pt.data.loader import Loader
from automl_pt.data.prepare import Data
from automl_pt.plugins.manager import Plugins
from automl_pt.runs.setup import choose_image_size, choose_preprocessing
from automl_pt.training.checkpoint import Checkpoints
from automl_pt.training.device import NumberFormat, choose_device, choose_precision
from automl_pt.training.evaluation import autocast
from automl_pt.training.layout import arrange, has_channels_last

BATCH = 64


def last_state(output: Path) -> dict[str, Any] | None:
    """Return the content of a run's `last` checkpoint, None if there is none."""
    return Checkpoints(output / "checkpoints").load()[0]


def rank_loss(config: TrainConfig, weights: Mapping[str, Tensor], data: Data, plugins: Plugins) -> float | None:
    """Return the ranking loss of `weights`, a run's state_dict; None if it is the plain validation loss.

    It is for a network without batch normalisation, or with frozen statistics, because these do not lag.
    """
    if config.keeps_batch_norm:
        return None
    backbone, device = plugins.backbone(config.backbone, config.backbone_options), choose_device(config.device)
    size = choose_image_size(config, data, backbone)
    shape = len(data.manifest.classes), size, data.manifest.pixels.channels
    model = _network(plugins, config.backbone, tuple(config.backbone_options), *shape)
    model.load_state_dict(weights)
    if not use_batch_statistics(model):
        return None
    model = arrange(model, device, choose_precision(config.precision, device))
    return shuffled_loss(model, config, data, plugins)


def shuffled_loss(
    model: nn.Module,
    config: TrainConfig,
    data: Data,
    plugins: Plugins,
    precision: NumberFormat | None = None,
    *,
    most: int | None = None,
) -> float:
    """Return that loss of `model`, ready on its device and for `precision`, by default the device's.

    It is the plain validation loss where `rank_loss` says so.

    The images come in one fixed random order, so that every batch mixes the classes. With `most` it ends after the
    batch that brings so many images; these are the same for all trials.
    """
    changed: Mapping[nn.modules.batchnorm._BatchNorm, float | None] = {}
    if config.keeps_batch_norm:
        model.eval()
    else:
        changed = use_batch_statistics(model)
    backbone, device = plugins.backbone(config.backbone, config.backbone_options), choose_device(config.device)
    precision = precision or choose_precision(config.precision, device)
    rule = choose_preprocessing(config, data, backbone)
    loader = Loader(
        data.pixels("val", rule.image_size),
        batch_size=BATCH,
        mean=rule.mean,
        std=rule.std,
        seed=0,
        device=device,
        hints=data.hints,
        augmented_epochs=0,
        shuffle=True,
        channels_last=has_channels_last(device, precision),
    )
    # summed on the device, which is waited for once; MPS has no float64
    total, count = torch.zeros((), dtype=torch.float32 if device.type == "mps" else torch.float64, device=device), 0
    with torch.inference_mode(), autocast(device, precision):
        for images, labels in loader.epoch(0):
            total += F.cross_entropy(model(images).float(), labels, reduction="sum")
            count += len(labels)
            if most is not None and count >= most:
                break
    for norm, momentum in changed.items():  # a proxy run leaves its network to the next one
        norm.momentum = momentum
    return total.item() / count


@lru_cache(maxsize=1)
def _network(
    plugins: Plugins, name: str, options: tuple[str, ...], classes: int, size: int, channels: int
) -> nn.Module:
    """Build the network once for all trials of a study; its initial weights do not matter."""
    return build_model(plugins.backbone(name, options), classes, size, seed=0, channels=channels)


def use_batch_statistics(model: nn.Module) -> Mapping[nn.modules.batchnorm._BatchNorm, float | None]:
    """Set `model` to evaluation mode with batch statistics in its batch normalisation; return that, with its momenta.

    The momenta are set to 0, which keeps the running statistics unchanged.
    """
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = {norm: norm.momentum for norm in norms}
    for norm in norms:
        norm.train()
        norm.momentum = 0.0
    return momenta
