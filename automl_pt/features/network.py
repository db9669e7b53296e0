"""A network with a frozen body: computes the input of its last linear layer as fast as the device allows."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from automl_pt.backbone import Backbone
from automl_pt.backbones.build import head_modules
from automl_pt.backbones.weights import in_modules
from automl_pt.core.errors import PluginError
from automl_pt.data.augmentation import gather
from automl_pt.images.preprocessing import Preprocessing, normalise, scale_and_offset
from automl_pt.training.device import NumberFormat, choose_precision
from automl_pt.training.evaluation import autocast
from automl_pt.training.layout import arrange, has_channels_last
from automl_pt.training.micro_batch import MicroBatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from automl_pt.data.pixels import Images

#: limits of a batch, in pixels and images: on a CPU small enough for its cache, on a GPU large enough to use it fully
CPU_PIXELS, CPU_IMAGES = 2**18, 64
GPU_PIXELS, GPU_IMAGES = 2**23, 512
#: largest relative difference between the features of two number formats that preserves the order of the
#: logits
TOLERANCE = 0.03
#: images for timing number formats
TIMED = 8


@dataclass(frozen=True)
class FrozenBody:
    """A network in evaluation mode and the name of its head, one linear layer that all logits depend on."""

    network: nn.Module
    head: str

    @property
    def linear(self) -> nn.Linear:
        """Return the head."""
        found = self.network.get_submodule(self.head)
        assert isinstance(found, nn.Linear)
        return found

    @property
    def dimensions(self) -> int:
        """Return the size of an image's features."""
        return self.linear.in_features

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features float32[B, D] of normalised images [B, C, S, S]."""
        kept: list[Tensor] = []

        def keep(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            kept.append(given[0])

        handle = self.linear.register_forward_pre_hook(keep)
        try:
            self.network(images)
        finally:
            handle.remove()
        return kept[-1].float()

    def digest(self) -> str:
        """Return the sha256 of the body's weights and buffers, with their names."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.network.state_dict().items()):
            if not in_modules(name, (self.head,)):
                plain = tensor.detach().cpu().contiguous()
                digest.update(f"{name} {plain.dtype} {list(plain.shape)}\n".encode())
                digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


def frozen_body(network: nn.Module, backbone: Backbone, image_size: int, channels: int = 3) -> FrozenBody:
    """Return `network` in evaluation mode as a body with a linear head.

    Raises PluginError if the logits are not the output of one linear layer on one vector per image.
    """
    heads = head_modules(network, backbone)
    linear = [name for name, one in network.named_modules() if isinstance(one, nn.Linear) and _within(name, heads)]
    if not linear:
        raise _not_linear(backbone, f"{', '.join(heads) or 'no module'} holds no linear layer")
    body = FrozenBody(network.eval(), linear[-1])
    images = _gradient(2, channels, image_size)
    kept: list[Tensor] = []
    handle = body.linear.register_forward_pre_hook(lambda module, given: kept.append(given[0]))
    try:
        with torch.no_grad():
            logits = network(images)
            handle.remove()
            if len(kept) != 1 or kept[0].shape != (2, body.dimensions) or kept[0].dtype != torch.float32:
                raise _not_linear(backbone, f"the input of {linear[-1]} is not one vector per image")
            if not torch.allclose(logits, body.linear(kept[0]), rtol=1e-3, atol=1e-4):
                raise _not_linear(backbone, f"the logits are not the output of {linear[-1]}")
    finally:
        handle.remove()
    return body


def is_same_in_training(body: FrozenBody, image_size: int, channels: int = 3) -> bool:
    """Return whether a frozen body gives the same features in training mode, as it does without dropout."""
    from automl_pt.training.loop import train_mode

    network = body.network
    trained = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(in_modules(name, (body.head,)))
    images = _gradient(4, channels, image_size)
    with torch.random.fork_rng([]), torch.no_grad():
        expected = body(images)
        train_mode(network)
        found = [body(images) for _ in range(2)]
        network.eval()
        network.load_state_dict(before)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(trained[name])
    return all(torch.allclose(one, expected, rtol=1e-4, atol=1e-5) for one in found)


def batch_size(image_size: int, device: torch.device) -> int:
    """Return how many images go through the network at once, by their pixels."""
    pixels, most = (CPU_PIXELS, CPU_IMAGES) if device.type == "cpu" else (GPU_PIXELS, GPU_IMAGES)
    return max(4, min(most, pixels // (image_size * image_size)))


class Extractor:
    """Computes features of decoded images in the fastest number format whose results are close to float32.

    `asked` is the setting `precision`; with "auto", if the device has a 16-bit format, both are timed on some of the
    first images, and `precision` then holds the chosen one.
    """

    def __init__(self, body: FrozenBody, preprocessing: Preprocessing, device: torch.device, asked: str) -> None:
        self.body, self.device, self.asked = body, device, asked
        self.precision: NumberFormat = choose_precision(asked, device)
        self.channels_last = has_channels_last(device, self.precision)
        self._is_chosen = asked != "auto" or self.precision == "fp32"
        self._factors = scale_and_offset(preprocessing.mean, preprocessing.std, device)
        self._portion = MicroBatch()
        arrange(body.network, device, self.precision)

    def __call__(self, images: Images, rows: NDArray[np.int64], *, mirrored: bool = False) -> Tensor:
        """Return float32[B, D], on the CPU, of the images at `rows` int64[B], or of their mirror images."""
        still, flips = np.zeros((len(rows), 2), np.int64), np.full(len(rows), mirrored)
        pixels = torch.from_numpy(gather(images, rows, still, flips, channels_last=self.channels_last))
        batch = normalise(pixels.to(self.device), *self._factors)
        if not self._is_chosen:
            self._choose(batch[:TIMED])
        return self._portion(lambda part: self._forward(part, self.precision), batch).cpu()

    def _choose(self, images: Tensor) -> None:
        """Choose a number format: the 16-bit one if it is faster, and its features are close to those of float32."""
        seconds = {"fp32": math.inf, self.precision: math.inf}
        features = {}
        for precision in (*seconds, *seconds):  # only the second time counts, because the first includes set-up
            started = time.perf_counter()
            features[precision] = self._forward(images, precision).cpu()
            seconds[precision] = min(seconds[precision], time.perf_counter() - started)
        apart = (features[self.precision] - features["fp32"]).norm() / features["fp32"].norm().clamp(min=1e-12)
        if seconds["fp32"] <= seconds[self.precision] or not bool(apart <= TOLERANCE):
            self.precision = "fp32"
        self._is_chosen = True

    def _forward(self, images: Tensor, precision: NumberFormat) -> Tensor:
        with torch.inference_mode(), autocast(self.device, precision):
            return self.body(images)


def _gradient(count: int, channels: int, side: int) -> Tensor:
    return torch.linspace(-1, 1, count * channels * side * side).reshape(count, channels, side, side)


def _within(name: str, heads: tuple[str, ...]) -> bool:
    return name in heads or in_modules(name, heads)


def _not_linear(backbone: Backbone, given: str) -> PluginError:
    return PluginError(
        "the network's head is not one linear layer, which frozen features require",
        given=f"{backbone.name}: {given}",
        remedy="name that layer in Backbone(head=...); or use --no-probe, and --features computed with --freeze",
    )
