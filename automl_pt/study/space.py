"""What is searched: learning rate, batch size, and the backbone where several are given."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from automl_pt.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from automl_pt.config import SearchConfig

DEFAULT_LR = 0.001
DEFAULT_BATCH_SIZE = 16
OFFERED = tuple(2**power for power in range(3, 9))


@dataclass(frozen=True)
class Space:
    """The ranges of one study: `lr` from low to high, `batch_sizes` rising, `backbones` in the order given."""

    lr: tuple[float, float]
    batch_sizes: tuple[int, ...]
    backbones: tuple[str, ...]

    def default(self) -> dict[str, Any]:
        """Return trial 0: the documented defaults, or what of the ranges is nearest to them."""
        low, high = self.lr
        batch_size = min(self.batch_sizes, key=lambda size: abs(math.log(size / DEFAULT_BATCH_SIZE)))
        return self._params(min(high, max(low, DEFAULT_LR)), batch_size, self.backbones[0])

    def at(self, unit: tuple[float, float, float]) -> dict[str, Any]:
        """Map a point of the unit cube to parameters, evenly in log lr, batch sizes and backbones."""
        low, high = (math.log(bound) for bound in self.lr)
        lr = min(self.lr[1], max(self.lr[0], math.exp(low + unit[0] * (high - low))))
        batch_size = self.batch_sizes[int(unit[1] * len(self.batch_sizes))]
        return self._params(lr, batch_size, self.backbones[int(unit[2] * len(self.backbones))])

    def without(self, batch_size: int) -> Space:
        """Leave out batch sizes from `batch_size` up, which did not fit in memory; the smallest always stays."""
        fitting = tuple(size for size in self.batch_sizes if size < batch_size)
        return Space(self.lr, fitting or self.batch_sizes[:1], self.backbones)

    def distributions(self) -> dict[str, BaseDistribution]:
        """Describe the parameters to Optuna's storage.

        Batch sizes are told as a range of integers: Optuna lets a range grow within a study, but not a set of choices.
        """
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        found: dict[str, BaseDistribution] = {
            "lr": FloatDistribution(*self.lr, log=True),
            "batch_size": IntDistribution(self.batch_sizes[0], self.batch_sizes[-1], log=True),
        }
        if len(self.backbones) > 1:
            found["backbone"] = CategoricalDistribution(self.backbones)
        return found

    def _params(self, lr: float, batch_size: int, backbone: str) -> dict[str, Any]:
        plain: dict[str, Any] = {"lr": lr, "batch_size": batch_size}
        return {**plain, "backbone": backbone} if len(self.backbones) > 1 else plain


def make_space(config: SearchConfig, train_images: int) -> Space:
    """Return the study's ranges; batch sizes that leave an epoch fewer than four steps are not offered unasked.

    Raises ConfigError when a batch size asked for is above the number of training images.
    """
    if config.batch_sizes is None:
        fitting = tuple(size for size in OFFERED if 4 * size <= train_images)
        sizes = fitting or (max(1, min(OFFERED[0], train_images)),)
    else:
        sizes = tuple(sorted(set(config.batch_sizes)))
        if sizes[-1] > train_images:
            raise ConfigError([f"batch_sizes: at most the number of training images, {train_images}, got {sizes[-1]}"])
    return Space(config.lr, sizes, tuple(dict.fromkeys(config.backbones)))
