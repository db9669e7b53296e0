"""The definition of a dataset: its name, and a function that returns labelled images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Hints:
    """Properties of a dataset's images that training respects."""

    #: a mirrored image still belongs to its class (not so for digits and letters)
    horizontal_flip: bool = True
    #: a slightly shifted image still belongs to its class
    shift: bool = True
    #: default side in pixels to train at; None: the backbone's own
    image_size: int | None = None
    #: whether a backbone starts from its pretrained weights by default; None: unless the side above is
    #: below 64 px, for which torchvision's networks get another stem
    pretrained: bool | None = None


class LazyImages(Sequence["NDArray[Any]"]):
    """`count` images, each created by `get(index)` on access, for sets that do not fit into memory.

    `get` may be called from any thread, and repeatedly for the same index, and must return the same image each time: a
    uint8 array [H, W, 3] or [H, W], or one of uint16 or float32 or other channels. It may raise
    `images.decode.UnreadableImage`.
    """

    def __init__(self, count: int, get: Callable[[int], NDArray[Any]]) -> None:
        self._count, self._get = count, get

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> NDArray[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> LazyImages: ...
    def __getitem__(self, index: int | slice) -> NDArray[Any] | LazyImages:
        chosen = range(self._count)[index]  # IndexError beyond the end
        if isinstance(chosen, range):
            return LazyImages(len(chosen), lambda position: self._get(chosen[position]))
        return self._get(chosen)


@dataclass(frozen=True)
class LabeledImages:
    """N images with their labels, as a dataset returns them, decoded only if necessary.

    `images` is a sequence of paths, or of uint8 arrays [H, W, 3] or [H, W]; arrays of uint16 or float32, or [H, W, C],
    keep their depth and channels up to the network, and all are alike. A lazy sequence such as LazyImages is
    allowed: items are accessed when needed, from any thread, and not kept. `labels` are integers into
    `classes`. `splits` names each image's split, or None to split it automatically. `names` identify images permanently
    (default: the path relative to `root`, or the index). Images of one of `groups` are never in two splits.
    `left_out` lists (name, reason) of files that were found and not used.
    `notes` are sentences for the user: what was guessed, and how the data were interpreted. `content_id` is a text that
    changes whenever any image does: with it, arrays are hashed once, and not each time a study resumes.
    """

    images: Sequence[Path] | Sequence[NDArray[Any]]
    labels: Sequence[int] | NDArray[np.int64]
    classes: Sequence[str]
    splits: Sequence[Split | None] | None = None
    names: Sequence[str] | None = None
    groups: Sequence[str] | None = None
    root: Path | None = None
    left_out: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    content_id: str | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """A named source of labelled images.

    `load(root)` returns the images; `root` is the folder of `--root`, or the path on the command line for
    kinds of data that are found by path. `download(root)` fetches the files for `load`, and is called on `--download`
    only.
    """

    name: str
    load: Callable[[Path | None], LabeledImages]
    hints: Hints = field(default_factory=Hints)
    download: Callable[[Path | None], None] | None = None
    license: str | None = None
    #: one line for listings
    description: str = ""
