"""What a backbone is: a name, how to build it, and the images it wants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Trial(Protocol):
    """What `search_space` is given: Optuna's trial, of which these three are asked."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Search a number from `low` to `high`."""
        ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Search a whole number from `low` to `high`, both included."""
        ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Search among `choices`: texts, numbers or truth values."""
        ...


@dataclass(frozen=True)
class PublishedWeights:
    """The file of a backbone's pretrained weights: where it is on this machine, and how it gets there.

    All three are functions, so that nothing is imported or asked before somebody needs the answer.
    """

    #: returns the file where it is on this machine, else None; uses no network
    cached: Callable[[], Path | None]
    #: fetches the file and returns it; raises WeightsError, naming the file, where that cannot be done
    fetch: Callable[[], Path]
    #: returns the size of the file in bytes, None where it is not known; uses no network
    size: Callable[[], int | None] = lambda: None


@dataclass(frozen=True)
class Backbone:
    """A named network builder.

    `build(num_classes, pretrained)` returns a new `nn.Module` from float[B, 3, S, S] to logits float[B, num_classes].
    A model may also return an object that holds them as `logits`. With `pretrained` it loads weights or raises; it
    never falls back to random ones. An argument of `build` called `image_size` is given the side of the images. Any
    other has a default and is an option: set by `backbone_options`, and searched where `search_space` says so.
    """

    name: str
    build: Callable[..., nn.Module]
    #: side S of the images in pixels, where the user names none
    image_size: int = 224
    #: smallest side the network accepts, if it takes other sizes than `image_size`; None: nothing is promised of others
    min_image_size: int | None = None
    #: per channel, of pixels scaled to [0, 1]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    #: True when `build(n, True)` can give pretrained weights
    has_pretrained: bool = False
    #: licence of those weights, shown in listings and kept with the model
    weights_license: str | None = None
    #: SHA-256 of their file in hexadecimal digits, where it is known: shown in listings and kept with the model
    weights_sha256: str | None = None
    #: the file of those weights; None: only `build` knows, and is asked for them when they are needed
    published: PublishedWeights | None = None
    #: called after `build` with the model and the image size: a place for a stem that suits small images
    adapt: Callable[[nn.Module, int], nn.Module] | None = None
    #: name, or names, of the head's modules; found as the last linear layer when None. On pretrained weights the last
    #: linear layer in each, with an output for each class, starts at zero
    head: str | tuple[str, ...] | None = None
    #: of (num_classes, image_size): the lines with which plain torchvision or timm builds the same network as `model`,
    #: for the model directory's README; None: only this package builds it
    recipe: Callable[[int, int], str] | None = None
    #: of (model, tensors): renames the tensors of a published weights file to this model's names
    convert_weights: Callable[[nn.Module, Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None
    #: of (model): names of its modules or parameters, in groups from the input to the head, for `layer_decay` and
    #: `freeze_groups`; None: a group for each of the model's children that has parameters, in their own order
    param_groups: Callable[[nn.Module], Sequence[Sequence[str]]] | None = None
    #: of (trial): asks it, by `trial.suggest_...`, for each option of `build` that a search shall search too
    search_space: Callable[[Trial], object] | None = None
    #: for listings; None: not known. `parameters` and `gflops` (of one image of `image_size`, a multiplication with
    #: its addition counted as two) are those of the network with its published head
    parameters: int | None = None
    gflops: float | None = None
    #: whether it normalises by batch, for listings; a run looks at the model itself
    batch_norm: bool | None = None


@dataclass(frozen=True)
class Catalogue:
    """Many backbones under one prefix, each made when it is asked for: for a zoo whose import is slow.

    `names()` lists them in full, `prefix` included; `make(name)` gives one of them. Neither is called before somebody
    lists all backbones or asks for a name that starts with `prefix`.
    """

    #: ends in "/"
    prefix: str
    names: Callable[[], Sequence[str]]
    make: Callable[[str], Backbone]
