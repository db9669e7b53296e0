"""A trial that is being run: its results so far, and what they amount to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from automl_pt.config import TrainConfig
from automl_pt.study.executor.base import ProxyRun
from automl_pt.study.store.attributes import Outcome
from automl_pt.training.result import EpochResult


@dataclass
class RunningTrial:
    """A trial the engine is working on; `results` include those of earlier processes, sent again at its start."""

    number: int
    config: TrainConfig
    #: epochs, and points within the first, that the storage knew of when the trial was started
    known: frozenset[float]
    results: list[EpochResult] = field(default_factory=list)
    #: what its runs in miniature took, by their length in epochs
    proxy_seconds: dict[float, float] = field(default_factory=dict)
    #: what the last of them gave, where this process saw it
    probe: ProxyRun | None = None

    @property
    def has_diverged(self) -> bool:
        """Say whether its loss was not finite in miniature."""
        return self.probe is not None and not math.isfinite(self.probe.rank_loss)

    def outcome(self, reason: str) -> Outcome:
        """Sum up what the trial gave and cost."""
        seconds = sum(self.proxy_seconds.values()) + sum(result.seconds for result in self.results)
        epochs = self.results[-1].epoch if self.results else 0
        return Outcome(reason, kept_loss(self.results, self.config.keep), epochs, seconds)


def weights_loss(result: EpochResult, keep: str) -> float:
    """Return the validation loss of the weights an epoch would keep: the moving average's where that is lower."""
    if keep == "last" or result.ema_val_loss is None:
        return result.val_loss
    return min(result.val_loss, result.ema_val_loss)


def kept_loss(results: Sequence[EpochResult], keep: str) -> float | None:
    """Return the validation loss of the weights a run kept, its best epoch's or its last's; None without any."""
    kept = results[-1:] if keep == "last" else [result for result in results if result.is_best][-1:]
    loss = weights_loss(kept[0], keep) if kept else math.nan
    return loss if math.isfinite(loss) else None
