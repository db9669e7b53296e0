"""The definition of a backbone: its name, how to build it, and the images it requires."""

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
    """The interface of Optuna's trial that `search_space` receives."""

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
    """The file of a backbone's pretrained weights: its place on this machine, and how to fetch it.

    All three are functions, so that nothing is imported or requested before it is needed.
    """

    #: returns the file if it is on this machine, else None; uses no network
    cached: Callable[[], Path | None]
    #: fetches the file and returns it; raises WeightsError, naming the file, if that fails
    fetch: Callable[[], Path]
    #: returns the size of the file in bytes, None if unknown; uses no network
    size: Callable[[], int | None] = lambda: None


@dataclass(frozen=True)
class Backbone:
    """A named network builder.

    `build(num_classes, pretrained)` returns a new `nn.Module` from float[B, 3, S, S] to logits float[B, num_classes].
    A model may also return an object with the attribute `logits`. With `pretrained` it loads weights or raises; it
    never falls back to random ones. An argument of `build` called `image_size` receives the side of the images, and
    one called `in_channels` the number of their channels, if it is not 3; without it the first convolution is adapted
    (see `automl_pt.backbones.first_convolution`). Any other has a default and is an option: set by `backbone_options`,
    and searched if `search_space` says so.
    """

    name: str
    build: Callable[..., nn.Module]
    #: default side S of the images in pixels
    image_size: int = 224
    #: smallest accepted side, if the network accepts other sizes than `image_size`; None: no other size is promised
    min_image_size: int | None = None
    #: per channel, of pixels scaled to [0, 1]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    #: True if `build(n, True)` can return pretrained weights
    has_pretrained: bool = False
    #: licence of those weights, shown in listings and stored with the model
    weights_license: str | None = None
    #: SHA-256 of their file in hexadecimal digits, if known: shown in listings and stored with the model
    weights_sha256: str | None = None
    #: the file of those weights; None: only `build` knows it, and is called when they are needed
    published: PublishedWeights | None = None
    #: called after `build` with the model and the image size, for example to adapt the stem to small images
    adapt: Callable[[nn.Module, int], nn.Module] | None = None
    #: name, or names, of the head's modules; None: the last linear layer. On pretrained weights the last
    #: linear layer in each, with one output per class, starts at zero
    head: str | tuple[str, ...] | None = None
    #: (num_classes, image_size) -> the lines with which plain torchvision or timm builds the same network as `model`,
    #: for the model directory's README; an argument `in_channels` receives the channels if they are not 3; None: only
    #: this package builds it
    recipe: Callable[..., str] | None = None
    #: (model, tensors) -> the tensors of a published weights file under this model's names
    convert_weights: Callable[[nn.Module, Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None
    #: (model) -> names of its modules or parameters, in groups from the input to the head, for `layer_decay` and
    #: `freeze_groups`; None: one group for each of the model's children with parameters, in their order
    param_groups: Callable[[nn.Module], Sequence[Sequence[str]]] | None = None
    #: (trial): calls `trial.suggest_...` for each option of `build` that a search should search
    search_space: Callable[[Trial], object] | None = None
    #: for listings; None: unknown. `parameters` and `gflops` (of one image of `image_size`, a multiplication with
    #: its addition counted as two) are those of the network with its published head
    parameters: int | None = None
    gflops: float | None = None
    #: whether it uses batch normalisation, for listings; a run inspects the model itself
    batch_norm: bool | None = None


@dataclass(frozen=True)
class Catalogue:
    """Many backbones under one prefix, each built on access, for a zoo that is slow to import.

    `names()` lists the full names, including `prefix`; `make(name)` returns one of them. Neither is called before
    all backbones are listed or a name that starts with `prefix` is requested.
    """

    #: must end in "/"
    prefix: str
    names: Callable[[], Sequence[str]]
    make: Callable[[str], Backbone]
