"""Turns an image into a model's input; training, prediction, evaluation and exports share this rule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from automl_pt.core.errors import InvalidModelDirectoryError
from automl_pt.images.pixel_format import RGB8, PixelFormat
from automl_pt.images.read import RULE

if TYPE_CHECKING:
    from torch import Tensor

#: a number for each channel
Channels = tuple[float, ...]

#: bytes of float32 that a CPU computes at a time
BLOCK = 256 << 10
#: larger values come only from damaged or hostile model files
MAX_IMAGE_SIZE = 4096


@dataclass(frozen=True)
class Preprocessing:
    """The side S of the images in pixels, mean and std per channel of pixels divided by 255, and the decoding rule.

    `automl_pt.images.decode.decode` applies the rule up to [C, S, S] in the format `pixels`, which is uint8[3, S, S]
    for photographs; `normalise` does the rest. Pixels of any type are divided by 255, so that one formula serves all:
    16 bits then go up to 257.
    """

    image_size: int
    mean: Channels
    std: Channels
    #: version of the conversion from file to pixels; a model made under another rule is refused
    rule: str = RULE
    #: the channels and the type of the pixels
    pixels: PixelFormat = RGB8

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        own = {name: value for name, value in asdict(self).items() if name != "pixels"}
        return {**own, "mean": list(self.mean), "std": list(self.std), **self.pixels.to_dict()}

    @staticmethod
    def from_dict(values: object) -> Preprocessing:
        """Rebuild from the result of `to_dict`; raise InvalidModelDirectoryError for anything else."""
        if not isinstance(values, Mapping) or set(values) - {"channels", "dtype"} != {
            *("image_size", "mean", "std", "rule")
        }:
            raise _invalid("the keys image_size, mean, std and rule", values)
        size, mean, std, rule = (values[key] for key in ("image_size", "mean", "std", "rule"))
        if type(size) is not int or not 0 < size <= MAX_IMAGE_SIZE:
            raise _invalid(f"an image_size from 1 to {MAX_IMAGE_SIZE}", size)
        try:
            pixels = PixelFormat.from_dict(values)
        except ValueError as error:
            raise _invalid("pixels of a known format", str(error)) from error
        many = "three" if pixels.channels == 3 else str(pixels.channels)
        if not _are_channels(mean, pixels):
            raise _invalid(f"a mean of {many} finite numbers", mean)
        if not _are_channels(std, pixels) or min(std) <= 0:
            raise _invalid(f"a std of {many} finite numbers above 0", std)
        if rule != RULE:
            raise _invalid(f"the rule {RULE!r}", rule)
        return Preprocessing(size, _channels(mean), _channels(std), rule, pixels)

    def normalise(self, images: Tensor) -> Tensor:
        """Return pixels [B, C, S, S] as float32 with the model's mean and std, on its device and in its layout."""
        return normalise(images, *scale_and_offset(self.mean, self.std, images.device))


def scale_and_offset(mean: Channels, std: Channels, device: object = "cpu") -> tuple[Tensor, Tensor]:
    """Return float32[C, 1, 1] twice: normalised = byte * scale + offset, which is (byte / 255 - mean) / std."""
    import torch

    scale = [1 / (255 * s) for s in std]
    offset = [-m / s for m, s in zip(mean, std, strict=True)]
    both = torch.tensor([scale, offset], dtype=torch.float32, device=torch.device(str(device)))[:, :, None, None]
    return both[0], both[1]


def normalise(images: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """Return pixels [B, C, S, S] * scale + offset as float32, in the same layout; the factors are float32[C, 1, 1]."""
    if images.device.type != "cpu":
        return images.float().mul_(scale).add_(offset)
    import torch

    channels_last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    if not channels_last:
        return _in_blocks(images, scale, offset)
    # whole rows of pixels at a time, because operations on three numbers at a time are slow
    channels, side = images.shape[1], images.shape[-1]
    factors = (factor.reshape(channels).repeat(side) for factor in (scale, offset))
    rows = _in_blocks(images.permute(0, 2, 3, 1).reshape(-1, side, channels * side), *factors)
    return rows.view(-1, side, side, channels).permute(0, 3, 1, 2)


def _in_blocks(images: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """Compute large images one by one, so that each stays in the processor's cache for the three operations."""
    import numpy as np
    import torch

    # numpy allocates huge pages and torch does not; at 224 pixels page faults would take most of the time
    result = torch.from_numpy(np.empty(tuple(images.shape), np.float32))
    step = max(1, BLOCK // max(1, 4 * images[:1].numel()))
    for target, source in zip(torch.split(result, step), torch.split(images, step), strict=True):
        target.copy_(source).mul_(scale).add_(offset)
    return result


def _are_channels(values: object, pixels: PixelFormat) -> bool:
    limit = math.inf if pixels.dtype == "float32" else 1e6
    return (
        isinstance(values, list | tuple)
        and len(values) == pixels.channels
        and all(type(value) in (int, float) and abs(value) < limit and math.isfinite(value) for value in values)
    )


def _channels(values: Any) -> Channels:
    return tuple(float(value) for value in values)


def _invalid(rule: str, given: object) -> InvalidModelDirectoryError:
    return InvalidModelDirectoryError(
        f"a model's preprocessing does not hold {rule}",
        given=repr(given)[:200],
        remedy="the model file is damaged or from another version of automl-pt: save or train the model again",
    )
