"""Tries a backbone's network once before any trial, where trials run, for its memory and its faults."""

from __future__ import annotations

from typing import Any

import torch

from automl_pt.backbones.build import build_model
from automl_pt.backbones.network_contract import require_trainable
from automl_pt.config import TrainConfig
from automl_pt.model.load import given_weights
from automl_pt.plugins.manager import Plugins
from automl_pt.runs.network import choose_parameters
from automl_pt.runs.setup import ask_for_determinism
from automl_pt.study.executor.base import Caller
from automl_pt.study.executor.trial_run import loaded_plugins
from automl_pt.training.device import choose_device, choose_precision, prepare_device
from automl_pt.training.layout import arrange, has_channels_last
from automl_pt.training.memory import step_memory
from automl_pt.training.rehearsal import rehearse


def prove(
    config: dict[str, Any], classes: int, size: int, channels: int, device: str, threads: int, caller: Caller
) -> dict[str, Any]:
    """Run `prove_backbone` in a worker process, from plain values; it is one step under the time limit."""
    settings = TrainConfig(**{**config, "device": device, "threads": threads})
    torch.set_num_threads(threads)
    return prove_backbone(settings, loaded_plugins(settings.plugins), classes, size, channels)


def prove_backbone(config: TrainConfig, plugins: Plugins, classes: int, size: int, channels: int = 3) -> dict[str, Any]:
    """Return the bytes of memory that a trial's step takes, `fixed` and `per_image`, and `notes`.

    Both are 0 where trials train a head on features, because a batch of these always fits.
    Raises WeightsError and ConfigError for weights and an image size that the network cannot use, PluginError if it
    violates the contract of a network.
    """
    backbone, device = plugins.backbone(config.backbone, config.backbone_options), choose_device(config.device)
    if config.deterministic:
        ask_for_determinism()  # an operation that has no deterministic form fails here, and not in every trial
    prepare_device(device)
    precision = choose_precision(config.precision, device)
    notes: list[str] = []
    weights = given_weights(config.weights) if config.weights else None
    pretrained = bool(config.pretrained)
    start: dict[str, Any] = {"seed": config.seed, "channels": channels}
    model = build_model(backbone, classes, size, pretrained=pretrained, weights=weights, tell=notes.append, **start)
    require_trainable(model, backbone.name)
    choose_parameters(model, backbone, config)
    fixed, per_image = 0, 0.0
    if not config.trains_on_features():
        fixed, per_image = step_memory(model, size, half=precision != "fp32", channels=channels)
    model = arrange(model, device, precision)
    run: dict[str, Any] = {"device": device, "precision": precision, "channels": channels}
    rehearse(model, backbone.name, classes, size, channels_last=has_channels_last(device, precision), **run)
    build_model(backbone, classes, size, **start)  # which must not be the same network as the first
    return {"fixed": fixed, "per_image": per_image, "notes": notes}
