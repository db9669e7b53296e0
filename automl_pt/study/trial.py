"""A running trial: its results so far, and their summary."""

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
    """A trial that the executor works on; `results` include those of earlier processes, sent again at its start."""

    number: int
    config: TrainConfig
    #: epochs, and points within the first, that were stored when the trial was started
    known: frozenset[float]
    results: list[EpochResult] = field(default_factory=list)
    #: duration of its proxy runs, by their length in epochs
    proxy_seconds: dict[float, float] = field(default_factory=dict)
    #: result of the last proxy run in this process
    probe: ProxyRun | None = None

    @property
    def has_diverged(self) -> bool:
        """Return whether its loss was not finite in a proxy run."""
        return self.probe is not None and not math.isfinite(self.probe.rank_loss)

    def outcome(self, reason: str) -> Outcome:
        """Summarise the trial's results and cost."""
        seconds = sum(self.proxy_seconds.values()) + sum(result.seconds for result in self.results)
        epochs = self.results[-1].epoch if self.results else 0
        return Outcome(reason, kept_loss(self.results, self.config.keep), epochs, seconds)


def weights_loss(result: EpochResult, keep: str) -> float:
    """Return the validation loss of the weights an epoch would keep: the moving average's if that is lower."""
    if keep == "last" or result.ema_val_loss is None:
        return result.val_loss
    return min(result.val_loss, result.ema_val_loss)


def kept_loss(results: Sequence[EpochResult], keep: str) -> float | None:
    """Return the validation loss of the weights a run kept, of its best or last epoch; None without any."""
    kept = results[-1:] if keep == "last" else [result for result in results if result.is_best][-1:]
    loss = weights_loss(kept[0], keep) if kept else math.nan
    return loss if math.isfinite(loss) else None
