"""How an export is compared with its model: on real images, both on the CPU, in fp32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from automl_pt.images.decode import as_rgb, decode_rgb, read
from automl_pt.images.preprocessing import normalise, scale_and_offset
from automl_pt.model.preprocessed import Preprocessed, Stage
from automl_pt.model.preprocessed import resize as in_network

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from automl_pt.model.load import Model

#: largest absolute difference of one logit, where logits are not large
BOUND = 1e-4
#: and as a share of the largest logit of an image, where that is more: float32 cannot hold 20,000 to 1e-4
RELATIVE_BOUND = 1e-5
#: largest share of the pixels that two runtimes may round apart where the export resizes, each by one level
PIXEL_BOUND = 0.01
BATCH_SIZE = 32

Run = Callable[[Tensor], "NDArray[np.float32]"]


@dataclass(frozen=True)
class ParityImages:
    """Real images to compare on: paths or arrays, the class indices of them where they are known, and what they are."""

    sources: Sequence[Any]
    said: str
    labels: Sequence[int] | None = None


@dataclass(frozen=True)
class Parity:
    """How an export compares on `images` images.

    `largest_difference` of a logit, and `same_class`, are to the same network in PyTorch with the same pixels: that is
    bound, by `bound`. Where the export resizes, `pixels` of those images, each channel counted, were compared with
    PyTorch's: `differing_pixels` of them were rounded apart, by `largest_pixel_difference` levels at most. The `model_`
    figures are to the model as `predict` runs it on the files; they are other ones only where the export resizes. The
    accuracies are None where the images' classes are not known.
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

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return asdict(self)

    @property
    def has_same_logits(self) -> bool:
        """Say whether no logit differs by more than the bound."""
        return self.largest_difference <= self.bound

    @property
    def has_same_pixels(self) -> bool:
        """Say whether pixels differ only as two runtimes round them: few, and by one level."""
        few = self.differing_pixels <= max(1, PIXEL_BOUND * self.pixels)
        return few and self.largest_pixel_difference <= 1


@dataclass
class _Side:
    """What the export's logits are compared with, as it goes."""

    largest: float = 0.0
    same: int = 0
    classes: list[int] = field(default_factory=list)
    #: of each image the largest difference and the largest logit
    differences: list[float] = field(default_factory=list)
    logits: list[float] = field(default_factory=list)

    def add(self, wanted: NDArray[np.float32], found: NDArray[np.float32]) -> None:
        difference = np.abs(found.astype(np.float64) - wanted)
        # not a number differs from everything, and max() would pass over it
        difference[~np.isfinite(difference)] = np.inf
        self.differences += difference.max(1).tolist()
        self.logits += np.abs(wanted).max(1).tolist()
        self.largest = max(self.largest, float(difference.max()))
        self.same += int((found.argmax(1) == wanted.argmax(1)).sum())
        self.classes += wanted.argmax(1).tolist()

    def worst(self) -> tuple[float, float]:
        """Return a difference and the bound on it, of the image in which it comes closest to it, or exceeds it most.

        The bound grows with an image's own largest logit, or with that of the middle image: the sums within a network
        round alike in an image whose logits happen to be small.
        """
        large = np.maximum(self.logits, np.median(self.logits))
        bounds = np.maximum(BOUND, RELATIVE_BOUND * np.where(np.isfinite(large), large, 0))
        index = int(np.argmax(self.differences / bounds))
        return self.differences[index], float(bounds[index])


@dataclass
class _Pixels:
    """How the pixels that an export resizes compare with PyTorch's, as it goes."""

    count: int = 0
    differing: int = 0
    largest: float = 0.0

    def add(self, wanted: NDArray[np.float32], found: NDArray[np.float32]) -> None:
        difference = np.abs(found - wanted)
        self.count += difference.size
        self.differing += int((difference != 0).sum())
        self.largest = max(self.largest, float(difference.max()))


def compare_exports(
    model: Model, network: nn.Module, run: Run, images: ParityImages, stage: Stage, resize: Run | None = None
) -> Parity:
    """Run `network`, its export as `run`, and the model itself on the images; raise UnreadableImage.

    `network` is the model's, with the preprocessing of `stage` before it. Images of any size go in one at a time, and
    `resize` then is the export of what resizes them: the logits are compared on the pixels that it gives, since two
    runtimes may round a sum that is half a level apart, and what matters behind that is one pixel's level.
    """
    rule, step = model.info.preprocessing, 1 if stage == "resize" else BATCH_SIZE
    scale, offset = scale_and_offset(rule.mean, rule.std)
    same_input, as_predicted, exported, resized = _Side(), _Side(), list[int](), _Pixels()
    for start in range(0, len(images.sources), step):
        batch = images.sources[start : start + step]
        pixels = torch.from_numpy(model.pixels(batch))
        normalised = normalise(pixels, scale, offset)
        given = {"none": normalised, "normalise": pixels}.get(stage)
        given = _whole(batch[0]) if given is None else given
        with torch.inference_mode():
            # copies: a network may write into what it is given
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
    )


def _behind(network: nn.Module, given: Tensor, resize: Run, pixels: _Pixels) -> NDArray[np.float32]:
    """Return PyTorch's logits for the pixels that the export resizes `given` to; compare those with PyTorch's."""
    assert isinstance(network, Preprocessed)
    assert network.size is not None
    levels = resize(given)
    pixels.add(in_network(given, network.size).numpy(), levels)
    logits: NDArray[np.float32] = network.behind(torch.from_numpy(levels)).numpy()
    return logits


def _whole(source: Path | str | NDArray[np.uint8]) -> Tensor:
    """Return an image at its own size, upright, as uint8[1, 3, H, W]."""
    pixels = as_rgb(source, "an array") if isinstance(source, np.ndarray) else decode_rgb(read(Path(source)), source)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]


def _accuracy(predicted: Sequence[int], labels: Sequence[int] | None) -> float | None:
    from sklearn.metrics import accuracy_score

    return None if labels is None else float(accuracy_score(labels, predicted))
