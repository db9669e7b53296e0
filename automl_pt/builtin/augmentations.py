"""The built-in augmentations: policies by name, and transforms for a list, by torchvision's transforms (version 2).

torchvision is imported when a run uses one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from automl_pt.plugins.augmentations import Augmentation
from automl_pt.plugins.hookspecs import hookimpl

#: smallest share of an image's area that `crop` keeps
LEAST_AREA = 0.35
_SHARE, _PIXELS, _FACTOR = (0.0, 1.0), (1.0, 4096.0), (0.0, 10.0)
_MODES = ("constant", "edge", "reflect", "symmetric")

#: the transforms of a list: torchvision's class, what its arguments may be, and those that differ from its own defaults
TRANSFORMS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "resize": ("Resize", {"size": _PIXELS}, {"antialias": True}),
    "center_crop": ("CenterCrop", {"size": _PIXELS}, {}),
    "pad": ("Pad", {"padding": (0.0, 4096.0), "fill": (0.0, 255.0), "padding_mode": _MODES}, {}),
    "random_crop": ("RandomCrop", {"size": _PIXELS, "padding": (0.0, 4096.0), "padding_mode": _MODES}, {}),
    "random_resized_crop": (
        "RandomResizedCrop",
        {"size": _PIXELS, "scale": _SHARE, "ratio": (0.1, 10.0)},
        {"antialias": True},
    ),
    "horizontal_flip": ("RandomHorizontalFlip", {"p": _SHARE}, {}),
    "vertical_flip": ("RandomVerticalFlip", {"p": _SHARE}, {}),
    "color_jitter": (
        "ColorJitter",
        {"brightness": _FACTOR, "contrast": _FACTOR, "saturation": _FACTOR, "hue": (0.0, 0.5)},
        {},
    ),
    "grayscale": ("RandomGrayscale", {"p": _SHARE}, {}),
    "random_rotation": ("RandomRotation", {"degrees": (0.0, 180.0), "fill": (0.0, 255.0)}, {}),
    "random_affine": (
        "RandomAffine",
        {
            **{"degrees": (0.0, 180.0), "translate": _SHARE, "scale": (0.01, 10.0), "shear": (0.0, 90.0)},
            "fill": (0.0, 255.0),
        },
        {},
    ),
    "random_erasing": (
        "RandomErasing",
        {"p": _SHARE, "scale": _SHARE, "ratio": (0.01, 100.0), "value": (0.0, 255.0)},
        {},
    ),
}
#: arguments without which a transform cannot be made
NEEDED = {
    **dict.fromkeys(("resize", "center_crop", "random_crop", "random_resized_crop"), ("size",)),
    **{"pad": ("padding",), "random_rotation": ("degrees",), "random_affine": ("degrees",)},
}


#: transforms that move pixels, and so take those of any channels and depth
_GEOMETRIC = (
    *("resize", "center_crop", "pad", "random_crop", "random_resized_crop", "horizontal_flip", "vertical_flip"),
    *("random_rotation", "random_affine", "random_erasing"),
)


@hookimpl
def register_augmentations() -> list[Augmentation]:
    """Register the policies and the transforms."""
    policies = [
        Augmentation("none", shift=False, flip=False, description="images as they are"),
        Augmentation("shift-flip", description="random shifts by up to an eighth of the side, and mirror images"),
        Augmentation(
            "crop", crop, shift=False, any_pixels=True, description="random crops, resized, and mirror images"
        ),
        Augmentation("trivial", trivial, description="shift-flip, then TrivialAugment (Müller and Hutter, 2021)"),
        Augmentation("rand", rand, description="shift-flip, then RandAugment (Cubuk et al., 2020)"),
        Augmentation("mixup", build_mix=partial(mixed, "MixUp", 0.2), description="shift-flip, batches by mixup"),
        Augmentation("cutmix", build_mix=partial(mixed, "CutMix", 1.0), description="shift-flip, batches by cutmix"),
    ]
    return policies + [
        Augmentation(
            name,
            partial(transform, name),
            arguments=arguments,
            needs=NEEDED.get(name, ()),
            any_pixels=name in _GEOMETRIC,
            description=f"torchvision's {kind}",
        )
        for name, (kind, arguments, _) in TRANSFORMS.items()
    ]


def crop(side: int) -> Callable[..., Any]:
    """Crop a random part of the image, and resize it to the whole."""
    from torchvision.transforms import v2

    made: Callable[..., Any] = v2.RandomResizedCrop(side, scale=(LEAST_AREA, 1.0), antialias=True)
    return made


def trivial(side: int) -> Callable[..., Any]:
    """Do one operation of a random strength."""
    from torchvision.transforms import v2

    made: Callable[..., Any] = v2.TrivialAugmentWide()
    return made


def rand(side: int) -> Callable[..., Any]:
    """Do two operations of the strength that torchvision has as its default."""
    from torchvision.transforms import v2

    made: Callable[..., Any] = v2.RandAugment()
    return made


def transform(name: str, side: int, **arguments: Any) -> Callable[..., Any]:
    """Make a transform of the list with its arguments."""
    from torchvision.transforms import v2

    kind, _, fixed = TRANSFORMS[name]
    sized = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    made: Callable[..., Any] = getattr(v2, kind)(**{**fixed, **sized})
    return made


def mixed(kind: str, alpha: float, classes: int) -> Callable[..., Any]:
    """Mix each image of a batch with the one before it, and the labels by the same share."""
    from torchvision.transforms import v2

    made: Callable[..., Any] = getattr(v2, kind)(alpha=alpha, num_classes=classes)
    return made
