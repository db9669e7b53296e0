"""What a sampler is: a named function that chooses the point at which a study's next trial is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class SearchSpace(Protocol):
    """What a sampler knows of the space. A point is a trial's searched settings by name."""

    @property
    def axes(self) -> int:
        """Return how many coordinates `at` takes."""

    def at(self, unit: Sequence[float]) -> dict[str, Any]:
        """Map a point of the unit cube, `axes` numbers in [0, 1), to settings, evenly on the scale of each."""

    def default(self) -> dict[str, Any]:
        """Return the settings of trial 0: the documented defaults, or what of the ranges is nearest."""


class Suggest(Protocol):
    """Chooses a point; a pure function of what it is given, so that a restarted search chooses the same."""

    def __call__(
        self, space: Any, params: Mapping[int, Mapping[str, Any]], ranking: Sequence[int], *, seed: int, number: int
    ) -> Mapping[str, Any]:
        """Return the settings of trial `number`, a point of `space`.

        `params` holds the settings of all trials so far, by number. `ranking` has the numbers of those that can be
        compared, the best first: their order is known, their losses are not, because trials end after different epochs.
        `seed` is the study's.
        """


@dataclass(frozen=True)
class Sampler:
    """A named sampler. Trial 0 is the documented default whatever the sampler, which is asked from trial 1 on."""

    name: str
    suggest: Suggest | Callable[..., Mapping[str, Any]]
    #: one line for listings
    description: str = ""
