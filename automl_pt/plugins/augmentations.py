"""What an augmentation is: a name, and functions that change a training image, or mix the images of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

#: what an argument may be: numbers from the first to the second, both included, or one of some texts
Allowed = tuple[float, float] | tuple[str, ...]


@dataclass(frozen=True)
class Augmentation:
    """A named augmentation of training images; it changes nothing in validation and in use.

    `build(side, **arguments)` returns a function of one image uint8[3, S, S] that returns another; what comes out in
    another size is resized to the side that the network is trained at. `build_mix(classes)` returns a function of a
    batch, images float[B, 3, S, S] and labels int64[B], that returns images and the share of each class, float[B,
    classes]. Both draw from PyTorch's random numbers alone, which are seeded for each image and for each batch. Import
    a library inside: a run that uses another augmentation does not need it.
    """

    name: str
    build: Callable[..., Callable[[Tensor], Tensor]] | None = None
    build_mix: Callable[[int], Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] | None = None
    #: whether the trainer's own shifts and mirror images, where the dataset's hints allow them, go with it
    shift: bool = True
    flip: bool = True
    #: what each argument of `build` may be; of a list of numbers each
    arguments: Mapping[str, Allowed] = field(default_factory=dict)
    #: whether the function that `build` returns takes float32[C, S, S] of any number of channels and any range too, as
    #: laboratory images have; what changes colours does not
    any_pixels: bool = False
    #: arguments without which it cannot be built
    needs: tuple[str, ...] = ()
    #: one line, for listings
    description: str = ""
