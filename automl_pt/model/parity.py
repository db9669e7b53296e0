"""Compares an export with its model on real images, both on the CPU, in fp32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from automl_pt.images.decode import as_rgb, decode_rgb, read, whole
from automl_pt.images.pixel_format import PixelFormat
from automl_pt.images.preprocessing import normalise, scale_and_offset
from automl_pt.model.preprocessed import Preprocessed, Stage
from automl_pt.model.preprocessed import resize as in_network

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from automl_pt.model.load import Model

#: limit of a logit's absolute difference
BOUND = 1e-4
#: limit as a share of the largest logit of an image, if that is more, because float32 cannot represent 20,000 to 1e-4
RELATIVE_BOUND = 1e-5
#: limit of the share of pixels that two runtimes may round differently, each by one level, if the export resizes
PIXEL_BOUND = 0.01
#: what counts as a level of float numbers, as a share of the largest one
FLOAT_LEVEL = 1e-5
BATCH_SIZE = 32

Run = Callable[[Tensor], "NDArray[np.float32]"]


@dataclass(frozen=True)
class ParityImages:
    """Real images to compare on: paths or arrays, their class indices if known, and a description."""

    sources: Sequence[Any]
    said: str
    labels: Sequence[int] | None = None


@dataclass(frozen=True)
class Parity:
    """The result of comparing an export on `images` images.

    `largest_difference` of a logit, and `same_class`, compare with the same network in PyTorch on the same pixels, with
    the limit `bound`. If the export resizes, `pixels` of those images, counting each channel, were compared with
    PyTorch's: `differing_pixels` of them were rounded differently, by at most `largest_pixel_difference` levels. The
    `model_` figures compare with `predict` on the files, which differs only if the export resizes. The accuracies are
    None if the images' classes are unknown.
    """

    images: int
    largest_difference: float
    same_class: int
    model_largest_difference: float
    model_same_class: int
    accuracy: float | None
    model_accuracy: float | None
    said: str
    bound: float = BOUND
    pixels: int = 0
    differing_pixels: int = 0
    largest_pixel_difference: float = 0.0
    pixel_bound: float = PIXEL_BOUND

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return asdict(self)

    @property
    def has_same_logits(self) -> bool:
        """Return whether no logit differs by more than the bound."""
        return self.largest_difference <= self.bound

    @property
    def has_same_pixels(self) -> bool:
        """Return whether pixels differ only by rounding: few, and by one level."""
        few = self.differing_pixels <= max(1, self.pixel_bound * self.pixels)
        return few and self.largest_pixel_difference <= 1


@dataclass
class _Side:
    """Accumulates the differences of the export's logits."""

    largest: float = 0.0
    same: int = 0
    classes: list[int] = field(default_factory=list)
    #: largest difference and largest logit of each image
    differences: list[float] = field(default_factory=list)
    logits: list[float] = field(default_factory=list)

    def add(self, wanted: NDArray[np.float32], found: NDArray[np.float32]) -> None:
        difference = np.abs(found.astype(np.float64) - wanted)
        # NaN counts as an infinite difference, because max() would ignore it
        difference[~np.isfinite(difference)] = np.inf
        self.differences += difference.max(1).tolist()
        self.logits += np.abs(wanted).max(1).tolist()
        self.largest = max(self.largest, float(difference.max()))
        self.same += int((found.argmax(1) == wanted.argmax(1)).sum())
        self.classes += wanted.argmax(1).tolist()

    def worst(self) -> tuple[float, float]:
        """Return the difference and its bound of the image that comes closest to its bound, or exceeds it most.

        The bound grows with an image's own largest logit, or with that of the median image, because the network's inner
        sums round alike in an image with small logits.
        """
        large = np.maximum(self.logits, np.median(self.logits))
        bounds = np.maximum(BOUND, RELATIVE_BOUND * np.where(np.isfinite(large), large, 0))
        index = int(np.argmax(self.differences / bounds))
        return self.differences[index], float(bounds[index])


@dataclass
class _Pixels:
    """Accumulates the differences of the pixels that an export resizes, in levels.

    A level of 16 bits is so small that any share of the pixels may be rounded by one; float numbers have no levels,
    and `FLOAT_LEVEL` of the largest counts as one.
    """

    dtype: str = "uint8"
    count: int = 0
    differing: int = 0
    largest: float = 0.0

    def add(self, wanted: NDArray[np.float32], found: NDArray[np.float32]) -> None:
        level = FLOAT_LEVEL * max(float(np.abs(wanted).max()), 1e-30) if self.dtype == "float32" else 1.0
        difference = np.abs(found - wanted) / level
        self.count += difference.size
        self.differing += int((difference != 0).sum())
        self.largest = max(self.largest, float(difference.max()))


def compare_exports(
    model: Model, network: nn.Module, run: Run, images: ParityImages, stage: Stage, resize: Run | None = None
) -> Parity:
    """Run `network`, its export as `run`, and the model itself on the images; raise UnreadableImage.

    `network` is the model's, with the preprocessing of `stage` before it. Images of any size are passed one at a time,
    and `resize` is the export of the resizing part: the logits are compared on its pixels, because two runtimes may
    round a sum at half a level differently, and one pixel's level would then affect the logits.
    """
    rule, step = model.info.preprocessing, 1 if stage == "resize" else BATCH_SIZE
    scale, offset = scale_and_offset(rule.mean, rule.std)
    same_input, as_predicted, exported, resized = _Side(), _Side(), list[int](), _Pixels(rule.pixels.dtype)
    for start in range(0, len(images.sources), step):
        batch = images.sources[start : start + step]
        pixels = torch.from_numpy(model.pixels(batch))
        normalised = normalise(pixels, scale, offset)
        given = {"none": normalised, "normalise": pixels}.get(stage)
        given = _whole(batch[0], rule.pixels) if given is None else given
        with torch.inference_mode():
            # cloned, because a network may write into its input
            own = model.network(normalised.clone()).float().numpy()
            wanted = (
                network(given.clone()).float().numpy()
                if resize is None
                else _behind(network, given.clone(), resize, resized)
            )
        found = run(given.clone())
        same_input.add(wanted, found)
        as_predicted.add(own, found)
        exported += found.argmax(1).tolist()
    difference, bound = same_input.worst()
    return Parity(
        images=len(exported),
        largest_difference=difference,
        same_class=same_input.same,
        model_largest_difference=as_predicted.largest,
        model_same_class=as_predicted.same,
        accuracy=_accuracy(exported, images.labels),
        model_accuracy=_accuracy(as_predicted.classes, images.labels),
        said=images.said,
        bound=bound,
        pixels=resized.count,
        differing_pixels=resized.differing,
        largest_pixel_difference=resized.largest,
        pixel_bound=PIXEL_BOUND if resized.dtype == "uint8" else 1.0,
    )


def given_to(model: Model, sources: Sequence[Any], stage: Stage) -> Callable[[int], NDArray[Any]]:
    """Return a function from the index of an image to the input of an export with the preprocessing of `stage`."""

    def given(index: int) -> NDArray[Any]:
        if stage == "resize":
            return np.asarray(_whole(sources[index], model.info.preprocessing.pixels).numpy())
        pixels = torch.from_numpy(model.pixels([sources[index]]))
        images = pixels if stage == "normalise" else model.info.preprocessing.normalise(pixels)
        return np.asarray(images.numpy())

    return given


def _behind(network: nn.Module, given: Tensor, resize: Run, pixels: _Pixels) -> NDArray[np.float32]:
    """Return PyTorch's logits for the pixels that the export resizes `given` to, and compare those pixels."""
    assert isinstance(network, Preprocessed)
    assert network.size is not None
    levels = resize(given)
    pixels.add(in_network(given, network.size, network.pixels).numpy(), levels)
    logits: NDArray[np.float32] = network.behind(torch.from_numpy(levels)).numpy()
    return logits


def _whole(source: Path | str | NDArray[Any], wanted: PixelFormat) -> Tensor:
    """Return an image at its original size, upright, as [1, C, H, W] in the `wanted` format."""
    pixels: NDArray[Any]
    if not wanted.is_rgb8:
        pixels = whole(Path(source) if isinstance(source, str) else source, wanted)
    elif isinstance(source, np.ndarray):
        pixels = as_rgb(source, "an array")
    else:
        pixels = decode_rgb(read(Path(source)), source)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]


def _accuracy(predicted: Sequence[int], labels: Sequence[int] | None) -> float | None:
    from sklearn.metrics import accuracy_score

    return None if labels is None else float(accuracy_score(labels, predicted))
