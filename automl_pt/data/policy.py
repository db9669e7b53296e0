"""The augmentations of a run, made of the settings: which of them change an image, and which mix a batch.

What changes an image draws by (seed, epoch, index), what mixes a batch by (seed, epoch, first index), so that neither
workers nor interruptions matter. Images are changed one by one on the CPU, in the thread that trains, because their
transforms draw from PyTorch's one random stream; batches are mixed on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from automl_pt.core.errors import ConfigError, PluginError, UnknownNameError
from automl_pt.core.seeds import derive_seed
from automl_pt.core.text import printable
from automl_pt.images.pixel_format import RGB8, PixelFormat
from automl_pt.plugins.augmentations import Allowed, Augmentation
from automl_pt.plugins.faults import plugins_fault

if TYPE_CHECKING:
    from automl_pt.plugins.manager import Plugins


#: an item of the setting `transforms`: a name, and arguments
Listed = Mapping[str, Any]
_Transform = tuple[str, Callable[[Tensor], Tensor]]


@dataclass(frozen=True)
class Policy:
    """What is done to training images, beside shifts and mirror images, which the loader does itself."""

    shift: bool = True
    flip: bool = True
    transforms: tuple[_Transform, ...] = ()
    mixes: tuple[tuple[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]], ...] = ()
    classes: int = 0

    def changed(self, images: Tensor, indices: Sequence[int], seed: int, epoch: int) -> Tensor:
        """Return uint8[B, 3, S, S], each image changed as its index in the split says.

        Pixels of other types and channels are changed as float32, and returned in their type.
        """
        if images.dtype != torch.uint8 or images.shape[1] != 3:
            return _in_type(self._changed(images.float(), indices, seed, epoch), images.dtype)
        return self._changed(images, indices, seed, epoch)

    def _changed(self, images: Tensor, indices: Sequence[int], seed: int, epoch: int) -> Tensor:
        found = []
        for image, index in zip(images, indices, strict=True):
            with _seeded(derive_seed(seed, "augmentation", epoch, int(index))):
                for name, transform in self.transforms:
                    with plugins_fault("an augmentation failed", whose=name):
                        image = transform(image)
                    _require_image(image, images, name)
            found.append(_sized(image, images.shape[-1]))
        return torch.stack(found)

    def mixed(self, images: Tensor, labels: Tensor, first: int, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
        """Return a batch float[B, 3, S, S] mixed by one of `mixes`, with float[B, classes], the share of each class."""
        number = derive_seed(seed, "mix", epoch, int(first))
        name, mix = self.mixes[number % len(self.mixes)]
        with _seeded(number), plugins_fault("an augmentation failed", whose=name):
            images, shares = mix(images, labels)
        if shares.shape != (len(labels), self.classes) or not shares.is_floating_point():
            raise PluginError(
                "an augmentation that mixes returns the share of each class for each image",
                given=f"{name}: {shares.dtype} {list(shares.shape)} for {len(labels)} images, {self.classes} classes",
                remedy="return float[B, classes] from what build_mix(classes) returns",
            )
        return images, shares

    def shares(self, labels: Tensor) -> Tensor:
        """Return labels int64[B] as what a mixed batch has: float32[B, classes], 1 for the image's own class."""
        return F.one_hot(labels, self.classes).float()


#: the documented augmentation
SHIFT_FLIP = Policy()


def make_policy(
    augmentation: str,
    transforms: Sequence[Listed],
    plugins: Plugins,
    side: int,
    classes: int,
    pixels: PixelFormat = RGB8,
) -> Policy:
    """Make what the settings `augmentation` and `transforms` name, for images of `side` pixels.

    Raises UnknownNameError for an unknown name, ConfigError for wrong arguments, or for what changes the
    colours of images that have other `pixels` than photographs.
    """
    policies = [_policy(plugins, name) for name in augmentation.split("+")]
    listed = [_of_list(plugins, place, dict(item)) for place, item in enumerate(transforms, 1)]
    _require_pixels([*policies, *(part for part, _ in listed)], pixels)
    made = [_made(part, {}, side, "augmentation") for part in policies]
    made += [_made(*one, side, f"transforms, item {place}") for place, one in enumerate(listed, 1)]
    mixes = []
    for part in (*policies, *(part for part, _ in listed)):
        if part.build_mix is not None:
            with plugins_fault("an augmentation cannot be made", whose=part.name):
                mixes.append((part.name, part.build_mix(classes)))
    return Policy(
        shift=all(part.shift for part in policies),
        flip=all(part.flip for part in policies),
        transforms=tuple(one for one in made if one is not None),
        mixes=tuple(mixes),
        classes=classes,
    )


def _require_pixels(parts: Sequence[Augmentation], pixels: PixelFormat) -> None:
    if pixels.is_rgb8:
        return
    for part in parts:
        if part.build is not None and not part.any_pixels:
            raise ConfigError(
                [
                    f"augmentation: {part.name} is made for RGB in 8 bits, and these images have {pixels}; choose "
                    "shift-flip, crop, mixup, cutmix or none, or give --channels 3 --depth 8"
                ]
            )


def require_policy(augmentations: Sequence[str], transforms: Sequence[Listed], plugins: Plugins) -> None:
    """Raise UnknownNameError or ConfigError for what no augmentation can be made of, before anything is read.

    Only what is listed with arguments is made for it, because that imports a library.
    """
    for value in augmentations:
        for name in value.split("+"):
            _policy(plugins, name)
    if transforms:
        make_policy("none", transforms, plugins, 32, 2)


def _policy(plugins: Plugins, name: str) -> Augmentation:
    found = plugins.named(Augmentation, name)
    if found.needs:
        rule = f"{name} needs {' and '.join(found.needs)}: list it in a config file, under [[transforms]]"
        raise ConfigError([f"augmentation: {rule}"])
    return found


def _made(part: Augmentation, arguments: dict[str, Any], side: int, where: str) -> _Transform | None:
    if part.build is None:
        return None
    with plugins_fault("an augmentation cannot be made", whose=part.name):
        try:
            return part.name, part.build(side, **arguments)
        except (TypeError, ValueError) as error:
            if not arguments:
                raise
            raise ConfigError([f"{where}: {part.name}: {printable(str(error))[:300]}"]) from error


def _of_list(plugins: Plugins, place: int, item: dict[str, Any]) -> tuple[Augmentation, dict[str, Any]]:
    name, where = item.pop("name", None), f"transforms, item {place}"
    if not isinstance(name, str):
        raise ConfigError([f'{where}: needs a name, such as name = "color_jitter"'])
    try:
        found = plugins.named(Augmentation, name)
    except UnknownNameError as error:
        raise ConfigError([f"{where}: no augmentation is called {printable(name)!r}; {error.remedy}"]) from None
    mistakes = [f"{where}: {name} needs {key}" for key in found.needs if key not in item]
    for key, value in item.items():
        if key not in found.arguments:
            known = ", ".join(found.arguments) or "no arguments"
            mistakes.append(f"{where}: {name} has no {printable(key)!r}; it has {known}")
        elif (rule := _broken(value, found.arguments[key])) is not None:
            mistakes.append(f"{where}: {name}: {key} {rule}, got {printable(repr(value))}")
    if mistakes:
        raise ConfigError(mistakes)
    return found, item


def _broken(value: object, allowed: Allowed) -> str | None:
    """Say which rule a value breaks; None where it is allowed. Of a list of numbers each is asked."""
    if isinstance(allowed[0], str):
        return None if value in allowed else f"must be one of {', '.join(map(str, allowed))}"
    low, high = float(allowed[0]), float(allowed[1])
    numbers = value if isinstance(value, list | tuple) and value else [value]
    if any(isinstance(n, bool) or not isinstance(n, int | float) or not low <= n <= high for n in numbers):
        return f"must be a number from {low:g} to {high:g}, or a list of such"
    return None


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Let the block draw from a stream of its own, and put the process's back."""
    generator = torch.default_generator
    before = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(before)


def _sized(image: Tensor, side: int) -> Tensor:
    if image.shape[-2:] == (side, side):
        return image
    resized = F.interpolate(image[None].float(), (side, side), mode="bilinear", antialias=True)
    return _in_type(resized[0], image.dtype)


def _in_type(image: Tensor, dtype: torch.dtype) -> Tensor:
    """Return float numbers as those of a type: whole ones are rounded, and kept in the type's range."""
    if dtype.is_floating_point:
        return image.to(dtype)
    return image.round().clamp(0, torch.iinfo(dtype).max).to(dtype)


def _require_image(image: object, given: Tensor, name: str) -> None:
    shape = image.shape if isinstance(image, Tensor) and image.dtype == given.dtype else ()
    if len(shape) != 3 or shape[0] != given.shape[1]:
        came = f"{image.dtype} {list(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
        kind = str(given.dtype).removeprefix("torch.")
        raise PluginError(
            f"an augmentation returns an image as it was given one, {kind}[{given.shape[1]}, height, width]",
            given=f"{name}: {came}",
            remedy="return such a tensor from what build(side) returns",
        )
