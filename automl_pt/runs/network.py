"""The network that a run trains: built for it, or that of the proxy run before it in this process, begun again.

A search makes many proxy runs of a few steps each. To build a network, rehearse it, try how much memory a step takes
and record the step takes longer than those few steps. So a proxy run leaves its network and its steps to the next
training with the same settings, which gives them the weights of its own seed: the result is that of a new network, to
the last bit. What differs in anything but the values of its tensors is not used again. One at most is kept.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from automl_pt.backbone import Backbone
from automl_pt.backbones.build import build_model, head_parameters
from automl_pt.backbones.description import are_alike, description, tensors_of
from automl_pt.backbones.network_contract import require_trainable
from automl_pt.backbones.parameter_groups import freeze, lr_scales
from automl_pt.config import TrainConfig
from automl_pt.data.prepare import Data
from automl_pt.features.linear_probe import start_from_probe
from automl_pt.images.preprocessing import Preprocessing
from automl_pt.model.load import given_weights
from automl_pt.training.device import NumberFormat
from automl_pt.training.distributed import ALONE, Group
from automl_pt.training.layout import arrange, has_channels_last
from automl_pt.training.loop import Training
from automl_pt.training.number_format import faster_format
from automl_pt.training.rehearsal import rehearse
from automl_pt.training.sgd import SGD

#: settings that change no more than the tensors of a network, and the rates and images of its steps
FREE = {"augment", "lr", "seed"}


@dataclass(frozen=True)
class Where:
    """Where and how a network trains."""

    device: torch.device
    precision: NumberFormat
    group: Group = ALONE


@dataclass
class RunNetwork:
    """A network that stands before its first step, for the settings in `key`, and the number format to train it in.

    `built` and `ready` describe it as it was built, and as it stands before the first step.
    """

    key: str
    config: TrainConfig
    backbone: Backbone
    network: nn.Module
    scales: dict[str, float] | None
    said: tuple[str, ...]
    built: object | None
    precision: NumberFormat = "fp32"
    ready: object | None = None
    #: the registered tensors, and their values before the first step
    tensors: list[Tensor] = field(default_factory=list)
    start: list[Tensor] = field(default_factory=list)
    modes: list[bool] = field(default_factory=list)
    #: the training whose steps the next one takes over
    training: Training | None = None
    #: what it had to say before its first step
    notes: list[str] = field(default_factory=list)

    def stands(self) -> None:
        """Note what it is like before its first step."""
        self.ready, self.tensors = description(self.network), tensors_of(self.network)
        self.modes = [module.training for module in self.network.modules()]

    def may_begin_again(self) -> bool:
        """Return whether training has changed nothing of it but the values of its tensors."""
        now = tensors_of(self.network)
        same = len(now) == len(self.tensors) and all(map(operator.is_, now, self.tensors))
        return same and self.built is not None and self.ready is not None and description(self.network) == self.ready

    @torch.no_grad()
    def begin_again(self) -> None:
        """Put the network back before its first step."""
        for tensor, value in zip(self.tensors, self.start, strict=True):
            tensor.copy_(value)
        for module, mode in zip(self.network.modules(), self.modes, strict=True):
            module.training = mode


#: what the last proxy run left, by its key
_LEFT: dict[str, RunNetwork] = {}


def network_for(
    config: TrainConfig, data: Data, backbone: Backbone, preprocessing: Preprocessing, where: Where
) -> RunNetwork:
    """Return the network that the last proxy run left, with the weights of this run, or build it."""
    key = _key(config, data, where)
    left = _LEFT.pop(key, None)
    forget()  # so that no second network needs memory
    if left is not None and are_alike(left.backbone, backbone) and left.may_begin_again():
        if left.config.seed == config.seed:
            left.begin_again()
            return left
        # no image passes through it to prove it, because one did through the network whose place it takes
        found = _build(key, config, data, backbone, preprocessing, prove=False)
        if found.built == left.built:
            left.start, left.config = [tensor.detach() for tensor in tensors_of(found.network)], config
            left.begin_again()
            return left
    left = None
    return _arranged(_build(key, config, data, backbone, preprocessing), preprocessing, data, where)


@contextmanager
def leaving(found: RunNetwork | None, training: Training) -> Iterator[None]:
    """Leave a network and its steps to the next training, once the block has ended without an error."""
    if found is None:
        yield
        return
    found.start = found.start or [tensor.detach().clone() for tensor in found.tensors]
    found.notes = list(training.step.notes)
    yield
    training.step.optimizer.zero_grad()
    # a step that was cut, or not recorded, would say so again in a new network; other optimisers may hide a state
    as_new = isinstance(training.step.optimizer, SGD) and training.step.notes == found.notes
    found.training = training if as_new else None
    forget()
    _LEFT[found.key] = found


def choose_parameters(model: nn.Module, backbone: Backbone, config: TrainConfig) -> dict[str, float] | None:
    """Freeze parameters by the settings, and return the factors on the learning rate if they are not all 1."""
    if config.freeze == "backbone":
        head = head_parameters(model, backbone)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in head)
    if config.freeze_groups:
        freeze(model, backbone, config.freeze_groups)
    if config.layer_decay == config.head_lr_factor == 1:
        return None
    return lr_scales(model, backbone, config.layer_decay, config.head_lr_factor)


def _key(config: TrainConfig, data: Data, where: Where) -> str:
    settings = config.model_dump_json(exclude=FREE)
    return f"{settings} {data.manifest.fingerprint()} {where.device} {where.precision} {where.group.size}"


def _build(
    key: str, config: TrainConfig, data: Data, backbone: Backbone, preprocessing: Preprocessing, *, prove: bool = True
) -> RunNetwork:
    said, side, classes = list[str](), preprocessing.image_size, len(data.manifest.classes)
    model = build_model(
        backbone,
        classes,
        side,
        pretrained=bool(config.pretrained),
        weights=given_weights(config.weights) if config.weights else None,
        seed=config.seed,
        prove=prove,
        channels=preprocessing.pixels.channels,
        tell=said.append,
    )
    require_trainable(model, backbone.name)
    if config.head == "probe":
        start_from_probe(model, backbone, config, data, preprocessing)
    scales = choose_parameters(model, backbone, config)
    return RunNetwork(key, config, backbone, model, scales, tuple(said), description(model))


def _arranged(found: RunNetwork, preprocessing: Preprocessing, data: Data, where: Where) -> RunNetwork:
    """Move a network to its device, rehearse it there, and choose its number format."""
    config, device, precision = found.config, where.device, where.precision
    side, classes, name = preprocessing.image_size, len(data.manifest.classes), found.backbone.name
    found.network = model = arrange(found.network, device, precision)
    channels_last = has_channels_last(device, precision)
    channels = preprocessing.pixels.channels
    run: dict[str, Any] = {"device": device, "precision": precision, "channels": channels}
    rehearse(model, name, classes, side, channels_last=channels_last, **run)
    if where.group.size == 1 and not config.deterministic:
        label = " ".join((name, *config.backbone_options))
        precision = faster_format(model, label, side, device, config.precision, precision, channels)
    found.precision = precision
    found.stands()
    return found


def forget() -> None:
    """Drop the network that a proxy run left, and the memory of its steps."""
    _LEFT.clear()
