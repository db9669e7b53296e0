"""Detects that further trials do not pay, because the last ones improved by less than the noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from automl_pt.study.model_store import ranked
from automl_pt.study.pruning.base import TrialProgress
from automl_pt.study.records import TrialRecord

#: this many trials must have brought no improvement, after at least as many before them
WINDOW = 8


@dataclass
class Plateau:
    """Checks, before a trial is added, whether the study has reached a plateau.

    `noise(best, second)` measures the standard error of the difference of two trials' losses, image by image, on the
    validation set; None if weights are missing or cannot be evaluated. `notes` hold the reasons.
    """

    noise: Callable[[TrialRecord, TrialRecord], float | None]
    notes: list[str] = field(default_factory=list)
    _measured: dict[tuple[int, int], float | None] = field(default_factory=dict)

    def is_reached(self, progress_list: Sequence[TrialProgress], records: Sequence[TrialRecord], level: float) -> bool:
        """Compare the last `WINDOW` trials with those before, all at epoch `level`."""
        losses = [trial.rank(level) for trial in progress_list if trial.end != "lost" and trial.epoch >= level]
        if len(losses) < 2 * WINDOW:
            return False
        gain = min(losses[:-WINDOW]) - min(losses[-WINDOW:])
        noise = self._noise(records)
        return noise is not None and max(0.0, gain) < noise

    def _noise(self, records: Sequence[TrialRecord]) -> float | None:
        best = ranked(records)[:2]
        if len(best) < 2:
            return None
        pair = (best[0].number, best[1].number)
        if pair not in self._measured:
            self._measured[pair] = self.noise(*best)
        return self._measured[pair]
