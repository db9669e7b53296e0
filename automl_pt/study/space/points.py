"""Counts the points of a search space, and notes when trials must repeat them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from automl_pt.core.text import counted
from automl_pt.study.space.space import DEFAULT_BATCH_SIZE, OFFERED, STEPS, Space, allowed

if TYPE_CHECKING:
    from automl_pt.study.space.dimensions import Dimension


def count_points(space: Space) -> int | None:
    """Return the number of points in a space, None if a range is continuous."""
    if space.lr[0] < space.lr[1]:
        return None
    total = 0
    for backbone in space.backbones:
        sizes = [_size(dimension) for dimension in space.own(backbone)]
        if None in sizes:
            return None
        total += len(space.batch_sizes) * math.prod(size for size in sizes if size is not None)
    return total


def settle(trials: int, space: Space, *, repeats: bool) -> tuple[int, str | None]:
    """Return how many of `trials` are needed, one if the space has one point, and a note on it.

    With `repeats`, for an ensemble or an average, all are needed, and then differ only in their seeds.
    """
    points = count_points(space)
    if points is None or points >= trials:
        return trials, None
    if points > 1:
        what = f"there are {points} settings to search, and {trials} trials"
        return trials, f"{what}: some settings are tried more than once, with other seeds"
    fixed = ", ".join(f"{name} {_shown(value)}" for name, value in space.default().items())
    if repeats:
        return trials, f"nothing to search: all {trials} trials have {fixed}, and differ in their seed alone"
    asked = counted(trials, "trial")
    note = f"nothing to search: {fixed} is the single setting, so 1 trial runs instead of the {asked} requested"
    return 1, f"{note}; `automl-pt train` trains with fixed settings"


def few_images(asked: Sequence[int] | None, epochs: int, train_images: int, sizes: tuple[int, ...]) -> str | None:
    """Return a note on which batch sizes are searched if the images are too few for the usual candidates.

    There is none where the user `asked` for batch sizes.
    """
    most = allowed(train_images, epochs)[-1]
    if asked is not None or most == OFFERED[-1]:
        return None
    default = min(sizes, key=lambda size: abs(math.log(size / DEFAULT_BATCH_SIZE)))
    instead = "" if default == DEFAULT_BATCH_SIZE else f" instead of {DEFAULT_BATCH_SIZE}"
    first = instead and f"; trial 0 has {default}{instead}"
    what = f"batch sizes above {most} are not searched"
    if len(sizes) == 1:
        what, first = f"the batch size is not searched, all trials have {sizes[0]}{instead}", ""
    why = f"larger ones leave a run under {STEPS} steps ({train_images} training images, {counted(epochs, 'epoch')})"
    return f"{what}, because {why}{first}; --batch-size names others"


def _size(dimension: Dimension) -> int | None:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    spread = dimension.distribution
    if isinstance(spread, CategoricalDistribution):
        return len(spread.choices)
    assert isinstance(spread, FloatDistribution | IntDistribution)
    if spread.low == spread.high:
        return 1
    return None if spread.step is None else round((spread.high - spread.low) / spread.step) + 1


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
