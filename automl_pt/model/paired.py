"""Compares two models on the same images: is one better by more than chance?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_pt.core.errors import InvalidDatasetError
from automl_pt.core.text import few
from automl_pt.model.scoring import losses_of

if TYPE_CHECKING:
    from automl_pt.model.labelled import Scored


@dataclass(frozen=True)
class Paired:
    """One model minus another, image by image; an accuracy above 0 or a loss below 0 favours the first.

    `p_value` is that of McNemar's exact test on the images that only one of them gets right; 1 if there are none.
    """

    images: int
    accuracy_difference: float
    only_first_right: int
    only_second_right: int
    p_value: float
    loss_difference: float
    #: of the mean of the per-image differences; None for a single image
    loss_standard_error: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return asdict(self)


def compare_models(first: Scored, second: Scored) -> Paired:
    """Compare two models' logits for the same images; raise InvalidDatasetError if the images differ."""
    if first.names != second.names:
        others = sorted({*first.names} ^ {*second.names})
        raise InvalidDatasetError(
            "the two models did not see the same images",
            given=f"{len(first.names)} and {len(second.names)} images; only one saw {few(others) or 'this order'}",
            remedy="give both the same data, and repair the images that cannot be read",
        )
    from scipy.stats import binomtest

    right = [scored.logits.argmax(axis=1) == scored.labels for scored in (first, second)]
    only_first, only_second = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    discordant = only_first + only_second
    difference = losses_of(first.logits, first.labels) - losses_of(second.logits, second.labels)
    images = len(difference)
    return Paired(
        images=images,
        accuracy_difference=(only_first - only_second) / images,
        only_first_right=only_first,
        only_second_right=only_second,
        p_value=float(binomtest(only_first, discordant).pvalue) if discordant else 1.0,
        loss_difference=float(difference.mean()),
        loss_standard_error=float(difference.std(ddof=1) / np.sqrt(images)) if images > 1 else None,
    )
