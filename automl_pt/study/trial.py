"""A running trial: its results so far, and their summary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from automl_pt.study.executor.messages import ProxyRun
from automl_pt.study.store.attributes import Outcome
from automl_pt.training.result import EpochResult


@dataclass
class RunningTrial:
    """A trial that the executor works on; `results` include those of earlier processes, sent again at its start."""

    number: int
    #: which epoch a run keeps, see `TrainConfig.keep`
    keep: str
    #: epochs, and points within the first, that were stored when the trial was started
    known: frozenset[float]
    results: list[EpochResult] = field(default_factory=list)
    #: duration of its proxy runs, by their length in epochs
    proxy_seconds: dict[float, float] = field(default_factory=dict)
    #: result of the last proxy run in this process
    proxy_run: ProxyRun | None = None

    @property
    def has_diverged(self) -> bool:
        """Return whether its loss was not finite in a proxy run."""
        return self.proxy_run is not None and not math.isfinite(self.proxy_run.rank_loss)

    def outcome(self, reason: str) -> Outcome:
        """Summarise the trial's results and cost."""
        seconds = sum(self.proxy_seconds.values()) + sum(result.seconds for result in self.results)
        epochs = self.results[-1].epoch if self.results else 0
        value, metrics = kept_loss(self.results, self.keep), kept_metrics(self.results, self.keep)
        kept = kept_epoch(self.results, self.keep)
        cost = kept.cost if kept is not None and kept.cost is not None and math.isfinite(kept.cost) else None
        return Outcome(reason, value, epochs, seconds, metrics, cost)


def weights_loss(result: EpochResult, keep: str) -> float:
    """Return the validation loss of the weights an epoch would keep, which may be the moving average's."""
    if result.keeps_average(keep) and result.ema_val_loss is not None:
        return result.ema_val_loss
    return result.val_loss


def kept_loss(results: Sequence[EpochResult], keep: str) -> float | None:
    """Return the validation loss of the weights a run kept, its best epoch's or its last's; None without any."""
    kept = kept_epoch(results, keep)
    loss = weights_loss(kept, keep) if kept is not None else math.nan
    return loss if math.isfinite(loss) else None


def kept_metrics(results: Sequence[EpochResult], keep: str) -> dict[str, float]:
    """Return the metrics of the weights a run kept, by name; without those that are not finite."""
    kept = kept_epoch(results, keep)
    if kept is None:
        return {}
    return {name: value for name, value in kept.kept_values(keep).items() if math.isfinite(value)}


def kept_epoch(results: Sequence[EpochResult], keep: str) -> EpochResult | None:
    """Return the epoch whose weights a run kept, its best or its last; None without any."""
    kept = results if keep == "last" else [result for result in results if result.is_best]
    return kept[-1] if kept else None
