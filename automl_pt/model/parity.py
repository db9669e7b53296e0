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
from automl_pt.model.preprocessed import Stage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from automl_pt.model.load import Model

#: largest absolute difference of one logit
BOUND = 1e-4
BATCH_SIZE = 32

Run = Callable[[Tensor], "NDArray[np.float32]"]


@dataclass(frozen=True)
class Images:
    """Real images to compare on: paths or arrays, the class indices of them where they are known, and what they are."""

    sources: Sequence[Any]
    said: str
    labels: Sequence[int] | None = None


@dataclass(frozen=True)
class Parity:
    """How an export compares on `images` images.

    `largest_difference` of a logit, and `same_class`, are to the same network in PyTorch with the same input: that is
    bound. The `model_` figures are to the model as `predict` runs it on the files; they are other ones only where the
    export resizes. The accuracies are None where the images' classes are not known.
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

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return asdict(self)


@dataclass
class _Side:
    """What the export's logits are compared with, as it goes."""

    largest: float = 0.0
    same: int = 0
    classes: list[int] = field(default_factory=list)

    def add(self, wanted: NDArray[np.float32], found: NDArray[np.float32]) -> None:
        difference = np.abs(found.astype(np.float64) - wanted)
        # not a number differs from everything, and max() would pass over it
        self.largest = max(self.largest, float(difference.max()) if np.isfinite(difference).all() else float("inf"))
        self.same += int((found.argmax(1) == wanted.argmax(1)).sum())
        self.classes += wanted.argmax(1).tolist()


def compare(model: Model, network: nn.Module, run: Run, images: Images, stage: Stage) -> Parity:
    """Run `network`, its export as `run`, and the model itself on the images; raise UnreadableImage.

    `network` is the model's, with the preprocessing of `stage` before it. Images of any size go in one at a time.
    """
    rule, step = model.info.preprocessing, 1 if stage == "resize" else BATCH_SIZE
    scale, offset = scale_and_offset(rule.mean, rule.std)
    same_input, as_predicted, exported = _Side(), _Side(), list[int]()
    for start in range(0, len(images.sources), step):
        batch = images.sources[start : start + step]
        pixels = torch.from_numpy(model.pixels(batch))
        normalised = normalise(pixels, scale, offset)
        given = {"none": normalised, "normalise": pixels}.get(stage)
        given = _whole(batch[0]) if given is None else given
        pairs = ((model.network, normalised), (network, given))
        with torch.inference_mode():
            # copies: a network may write into what it is given
            own, wanted = (net(taken.clone()).float().numpy() for net, taken in pairs)
        found = run(given.clone())
        same_input.add(wanted, found)
        as_predicted.add(own, found)
        exported += found.argmax(1).tolist()
    return Parity(
        images=len(exported),
        largest_difference=same_input.largest,
        same_class=same_input.same,
        model_largest_difference=as_predicted.largest,
        model_same_class=as_predicted.same,
        accuracy=_accuracy(exported, images.labels),
        model_accuracy=_accuracy(as_predicted.classes, images.labels),
        said=images.said,
    )


def _whole(source: Path | str | NDArray[np.uint8]) -> Tensor:
    """Return an image at its own size, upright, as uint8[1, 3, H, W]."""
    pixels = as_rgb(source, "an array") if isinstance(source, np.ndarray) else decode_rgb(read(Path(source)), source)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]


def _accuracy(predicted: Sequence[int], labels: Sequence[int] | None) -> float | None:
    from sklearn.metrics import accuracy_score

    return None if labels is None else float(accuracy_score(labels, predicted))
