"""When a model's answer is unsure: a rule fitted on validation images, measured on test images, kept with the model.

Two parts. The candidates of an image are a conformal prediction set: all classes whose probability reaches a threshold,
chosen so that the true class is among them for a share `1 - max_error` of new images that are drawn like the validation
images, whatever the network (Sadinle, Lei and Wasserman, "Least ambiguous set-valued classifiers with bounded error
levels", JASA 2019). An answer is sure if there is exactly one candidate, with a probability above one half; so at most
a share `max_error` of the images get a sure answer that is wrong. The second part is the distance of an image's
features to known ones, `novelty.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_pt.core.errors import UsageError
from automl_pt.model.intervals import Interval, wilson
from automl_pt.model.novelty import Novelty
from automl_pt.model.softmax import softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from automl_pt.model.info import ModelInfo

#: the largest share of images with a sure answer that is wrong, unless another is requested
MAX_ERROR = 0.05
#: the reasons why an answer is unsure, as files and pages show them
SEVERAL, NONE, UNLIKE = "several classes", "no class is likely", "unlike known images"
#: a sure answer has a higher probability, because else it is more likely wrong than right
LEAST = 0.5
#: how much lower than in the fit a probability may be, because a batch of another size may round the last bits apart
ROUNDING = 1e-6


@dataclass(frozen=True)
class Answer:
    """One image's classes that are likely enough, best first, and how far it is from known images.

    `unsure` is None if the answer is sure, else one of the reasons above. `novelty` is the distance as a share of its
    limit, so that above 1 the image is unlike known ones; None if the model has no such limit.
    """

    candidates: tuple[int, ...]
    novelty: float | None
    unsure: str | None


@dataclass(frozen=True)
class Measured:
    """The rule on labelled images: how many answers were sure, how many of these right, and two further counts.

    `covered` counts images whose true class is among the candidates, `unlike` those unlike known images. `split` is the
    one measured on; on "val" the figures are slightly too good, because the rule was fitted on it.
    """

    images: int
    sure: int
    right: int
    covered: int
    unlike: int
    split: str

    def to_dict(self) -> dict[str, Any]:
        """Return the counts, and the shares with their 95 % intervals (Wilson's), as plain values for JSON."""
        return {
            **asdict(self),
            "sure_share": self.sure / self.images,
            "accuracy_when_sure": self.right / self.sure if self.sure else None,
            "accuracy_when_sure_interval": self.accuracy_interval,
            "coverage": self.covered / self.images,
            "coverage_interval": wilson(self.covered, self.images),
        }

    @property
    def accuracy_interval(self) -> Interval | None:
        """Return the 95 % interval of the accuracy of sure answers; None if there are none."""
        return wilson(self.right, self.sure) if self.sure else None


@dataclass(frozen=True)
class UnsureRule:
    """A class is a candidate if its probability at `temperature` reaches `threshold`.

    It was fitted on `images` images of `data`. `weights` is the SHA-256 of the weights that it was fitted for.
    """

    weights: str
    max_error: float
    threshold: float
    temperature: float
    images: int
    data: str
    novelty: Novelty | None = field(default=None, compare=False)
    measured: Measured | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the rule without its bank, with the measured figures, as plain values for JSON."""
        found = {name: value for name, value in vars(self).items() if name not in ("novelty", "measured")}
        found["novelty_limit"] = None if self.novelty is None else self.novelty.limit
        return {**found, "measured": None if self.measured is None else self.measured.to_dict()}

    def answers(self, logits: NDArray[np.float32], features: NDArray[np.float32] | None = None) -> Sequence[Answer]:
        """Return the answers for logits float32[N, C] and features float32[N, D]."""
        shares = softmax(logits, self.temperature)
        order, best = np.argsort(-logits, axis=1, kind="stable"), shares.max(axis=1)
        counts = (shares >= self.threshold - ROUNDING).sum(axis=1)
        novelties: Sequence[float | None] = [None] * len(logits)
        if self.novelty is not None and features is not None:
            novelties = self.novelty.score(features).tolist()
        return [
            Answer(tuple(row[:count].tolist()), novelty, _reason(int(count), float(share), novelty))
            for row, count, share, novelty in zip(order, counts, best, novelties, strict=True)
        ]


def measure(answers: Sequence[Answer], logits: NDArray[np.float32], labels: NDArray[np.int64], split: str) -> Measured:
    """Count sure and right answers among those for logits float32[N, C] with labels int64[N], N > 0."""
    first = logits.argmax(axis=1) == labels
    return Measured(
        images=len(labels),
        sure=sum(answer.unsure is None for answer in answers),
        right=sum(bool(right) for right, answer in zip(first, answers, strict=True) if answer.unsure is None),
        covered=sum(int(label) in answer.candidates for label, answer in zip(labels, answers, strict=True)),
        unlike=sum(answer.unsure == UNLIKE for answer in answers),
        split=split,
    )


def fewest_images(max_error: float) -> int:
    """Return how many validation images a threshold for `max_error` needs."""
    return math.ceil(1 / max_error - 1e-9) - 1


def conformal_threshold(shares: NDArray[np.float32], labels: NDArray[np.int64], max_error: float) -> float | None:
    """Return the probability from which a class is a candidate, for probabilities float32[N, C] and labels int64[N].

    Of N + 1 exchangeable images each is equally likely to have the lowest probability of its true class, and so on; so
    the k-th lowest of N misses a new image with a probability of k / (N + 1) at most. None if N is too small for any.
    """
    own = np.sort(shares[np.arange(len(labels)), labels])
    rank = math.floor((len(own) + 1) * max_error + 1e-9)
    return float(own[rank - 1]) if rank >= 1 else None


def require_max_error(value: float) -> None:
    """Raise UsageError for a share that is not above 0 and below 1."""
    if not 0 < value < 1:
        raise UsageError(
            "the largest share of wrong sure answers must be above 0 and below 1",
            given=f"--max-error {value:g}",
            remedy="give a share such as 0.05, which is one image in twenty",
        )


def require_rule(rule: UnsureRule | None, info: ModelInfo) -> UnsureRule:
    """Return the rule; raise UsageError if there is none."""
    if rule is None:
        raise UsageError(
            "no rule for unsure answers is kept with the model",
            given=f"a model of {info.backbone}, {len(info.classes)} classes",
            remedy="fit one on its validation images: `automl-pt evaluate MODEL DATA --calibrate`",
        )
    return rule


def _reason(candidates: int, best: float, novelty: float | None) -> str | None:
    if novelty is not None and novelty > 1:
        return UNLIKE
    if candidates > 1:
        return SEVERAL
    return None if candidates == 1 and best > LEAST else NONE


def conditions(rule: UnsureRule) -> str:
    """Return when an answer is sure, for a person."""
    floor = max(rule.threshold, LEAST)
    probable = f"its class has a probability above {100 * floor:.3g} %"
    if rule.threshold < LEAST:
        probable += f", every other class one below {100 * rule.threshold:.3g} %"
    return probable + ("" if rule.novelty is None else ", and the image is like known images")


def told(measured: Measured, max_error: float) -> list[str]:
    """Return lines on the rule's figures, for a person."""
    own = "; it was fitted on these images, so new ones do slightly worse" if measured.split == "val" else ""
    low, high = (100 * share for share in wilson(measured.covered, measured.images))
    lines = [f"sure answers: {measured.sure} of {measured.images} images ({_percent(measured.sure, measured.images)})"]
    if measured.accuracy_interval is not None:
        bottom, top = (100 * share for share in measured.accuracy_interval)
        right = _percent(measured.right, measured.sure)
        lines[0] += f", of which {right} are right (95 % interval {bottom:.1f} to {top:.1f} %)"
    lines.append(
        f"the true class is among the candidates of {_percent(measured.covered, measured.images)} (95 % interval "
        f"{low:.1f} to {high:.1f} %); the aim is {100 * (1 - max_error):g} %{own}"
    )
    if measured.unlike:
        lines.append(f"unlike known images: {measured.unlike} of {measured.images}")
    return lines


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %"
