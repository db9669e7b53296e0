"""Networks that take pixels as files have them: their preprocessing is part of the network, and so of an export."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import SymInt, Tensor, nn

from automl_pt.images.pixel_format import LARGEST, RGB8, PixelFormat
from automl_pt.images.preprocessing import scale_and_offset

if TYPE_CHECKING:
    from automl_pt.images.preprocessing import Preprocessing

#: the part of preprocessing that a network does: none; bytes to normalised floats; also resizing and cropping
Stage = Literal["none", "normalise", "resize"]
#: half a level plus a margin, so that sums at exactly half a level round up in every runtime
_HALF = 0.5 + 2**-12


def takes(stage: Stage, pixels: PixelFormat) -> str:
    """Describe the input of an exported network."""
    kind, channels = pixels.dtype, pixels.channels
    if stage == "none":
        return f"float32[B, {channels}, S, S], normalised"
    if stage == "normalise":
        return f"{kind}[B, {channels}, S, S]"
    return f"{kind}[B, {channels}, H, W], upright{' RGB' if pixels.is_rgb8 else ''} of any size from 2 x 2"


def preprocessed(network: nn.Module, preprocessing: Preprocessing, stage: Stage) -> nn.Module:
    """Return `network` with the part of the preprocessing before it that `stage` states."""
    if stage == "none":
        return network
    return Preprocessed(network, preprocessing, resizes=stage == "resize")


def resize(images: Tensor, size: int, pixels: PixelFormat = RGB8) -> Tensor:
    """Return uint8[B, 3, H, W] with the short side at S = `size`, its centre, as float32[B, 3, S, S] of whole levels.

    This is the antialiased bilinear filter of `automl_pt.images.resize`, as two products with weight matrices, with the
    same rounding after each. It does not repeat that filter's fixed-point weights, so a byte may differ by one level.
    Other `pixels` than photographs' are rounded once, as `fit_any` does, and float ones never.
    No operation depends on values known only at run time, because exporters require that.
    """
    height, width = images.shape[2], images.shape[3]
    short = torch.sym_min(height, width)
    rows = _weights(height, size * height // short, size, images.device)
    columns = _weights(width, size * width // short, size, images.device)
    if pixels.is_rgb8:
        return _levels(_levels(rows @ images.float()) @ columns.T)
    found = rows @ images.float() @ columns.T
    return torch.round(found).clamp(0, LARGEST[pixels.dtype]) if pixels.dtype in LARGEST else found


class Resizing(nn.Module):
    """The first part of a network that resizes: uint8[B, 3, H, W] to float32[B, 3, S, S] of whole levels."""

    def __init__(self, size: int, pixels: PixelFormat = RGB8) -> None:
        super().__init__()
        self.size, self.pixels = size, pixels

    def forward(self, images: Tensor) -> Tensor:
        """Return the levels."""
        return resize(images, self.size, self.pixels)


class Preprocessed(nn.Module):
    """A network that normalises bytes itself, after resizing and cropping them if it `resizes`."""

    scale: Tensor
    offset: Tensor

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, *, resizes: bool) -> None:
        super().__init__()
        self.network = network
        self.size = preprocessing.image_size if resizes else None
        self.pixels = preprocessing.pixels
        scale, offset = scale_and_offset(preprocessing.mean, preprocessing.std)
        self.register_buffer("scale", scale.clone(), persistent=False)
        self.register_buffer("offset", offset.clone(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits float32[B, C]."""
        return self.behind(images.float() if self.size is None else resize(images, self.size, self.pixels))

    def behind(self, levels: Tensor) -> Tensor:
        """Return logits float32[B, C] for float32[B, channels, S, S] of whole levels."""
        logits: Tensor = self.network(levels * self.scale + self.offset)
        return logits


def _weights(length: int, resized: int | SymInt, size: int, device: torch.device) -> Tensor:
    """Return float32[size, length]: the weight of each pixel of a side in each pixel of the centre after resizing."""
    over = resized - size
    # half of the cropped pixels, rounded half to even, in integer arithmetic only
    first = over // 2 + (over % 2) * (over // 2 % 2)
    factor = length / resized
    inside = torch.arange(size, dtype=torch.float32, device=device) + (first + 0.5)
    centres: Tensor = inside * factor  # type: ignore[assignment]  # typed as the symbolic number it is multiplied by
    places = torch.arange(length, dtype=torch.float32, device=device) + 0.5
    reach = torch.sym_max(factor, 1.0)
    distances: Tensor = (places[None] - centres[:, None]).abs() / reach  # type: ignore[assignment]  # as above
    weights = (1 - distances).clamp(min=0)
    return weights / weights.sum(1, keepdim=True)


def _levels(values: Tensor) -> Tensor:
    return torch.floor(values + _HALF).clamp(0, 255)
