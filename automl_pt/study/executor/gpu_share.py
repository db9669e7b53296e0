"""How many trials share a GPU: measured from what trials report, bounded by memory. No GPU is asked here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median

#: least gain in images per second for which the number of trials is doubled again
GAIN = 1.15
#: trials that share a GPU at most, where their number is measured
MOST = 8
#: reports at each number of trials, for each of these trials, before it is compared
REPORTS = 2
#: part of the free memory that stays free, and bytes of a process's own context on a GPU, outside of torch's count
RESERVED, CONTEXT = 0.1, 500 * 2**20


def room(free: int, need: int) -> int:
    """Return how many trials fit on a GPU: at least 1, because one runs there already."""
    return max(1, int(free * (1 - RESERVED)) // (need + CONTEXT))


def memory_limit(free: int, trials: int) -> int:
    """Return the bytes that torch may take in each of `trials` processes; 0 is no limit, for one alone."""
    return 0 if trials <= 1 or not free else max(0, int(free * (1 - RESERVED)) // trials - CONTEXT)


#: what makes speeds comparable -> speeds of single trials, in any unit
Speeds = Mapping[Hashable, Sequence[float]]


def gain(before: Speeds, trials_before: int, after: Speeds, trials: int) -> float | None:
    """Return how many times as much a GPU does with more trials on it; None where no two speeds can be compared."""
    ratios = [fmean(after[key]) / fmean(before[key]) for key in after if key in before]
    return median(ratios) * trials / trials_before if ratios else None


@dataclass
class TrialsPerGpu:
    """How many trials share each GPU now.

    `asked` of them from the start; 1 where the number is to be measured, then 2, 4 and so on while the GPU does more by
    `GAIN` and the memory suffices. After the memory was exhausted it is halved, and never raised again.
    """

    asked: int | None = None
    count: int = 1
    is_settled: bool = False
    #: bytes that the trials of a GPU can have together, and those that the largest has taken; 0: unknown
    free: int = 0
    need: int = 0
    _speeds: dict[int, dict[Hashable, list[float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.count, self.is_settled = self.asked or 1, self.asked is not None

    def learn_memory(self, free: int, peak: int) -> None:
        """Note what a trial has taken of a GPU at most and, while it is alone there, what it could have taken."""
        self.free = min(self.free or free, free) if self.count == 1 else self.free
        self.need = max(self.need, peak)

    def learn_speed(self, key: Hashable, speed: float) -> str | None:
        """Note the speed of a trial beside as many as there are now; say what changes, once enough is known."""
        speeds = self._speeds.setdefault(self.count, defaultdict(list))
        speeds[key].append(speed)
        if self.is_settled or not self.need or sum(map(len, speeds.values())) < REPORTS * self.count:
            return None
        if self.count == 1:
            return self._try(2, "")
        before = self.count // 2
        found = gain(self._speeds[before], before, speeds, self.count)
        if found is None:  # other settings than those before: wait for a trial that can be compared
            return None
        if found < GAIN:
            self.count, self.is_settled = before, True
            return f"{self.shared()}: {2 * before} at once do {found:.2f} times as much, which is not worth it"
        return self._try(2 * self.count, f"{self.count} trials at once do {found:.2f} times as much as {before}; ")

    def exhausted(self) -> str | None:
        """Halve the number after a trial ran out of memory, and say so; None for a trial that was alone."""
        if self.count == 1:
            return None
        before, self.count, self.is_settled = self.count, self.count // 2, True
        return f"the GPU's memory did not suffice for {before} trials at once; {self.shared()} from now on"

    def shared(self) -> str:
        """Say how many trials share a GPU."""
        return "one trial has each GPU" if self.count == 1 else f"{self.count} trials share each GPU"

    def _try(self, count: int, why: str) -> str | None:
        fits = min(MOST, room(self.free, self.need))
        if count <= fits:
            self.count = count
            return f"{why}{self.shared()} now, to measure whether they do more together"
        self.is_settled = True
        limit = f"at most {MOST} are tried" if fits == MOST else f"its memory has room for {fits}"
        return f"{why}{self.shared()}: {limit}"
