"""The time a search has, and the time it will take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Budget:
    """Counts from `since`, by `clock`, or from its making.

    `images` are those of an epoch, and those to be looked at once at the very end.
    """

    timeout: float | None
    slots: int = 1
    images: tuple[int, int] = (1, 0)
    clock: Callable[[], float] = time.monotonic
    since: float | None = None
    epochs: float = 0.0
    #: when the first trial was begun; what was done before is not part of an epoch's cost
    begun: float | None = None
    longest_epoch: float = 0.0
    #: seconds of epochs, and of saving after them, of all slots together
    busy: float = 0.0
    #: seconds at the end that belong to the report
    report: float = 0.0
    #: images to be learned from once more after the trials; they are given no more time than the trials had
    later: int = 0
    started: float = field(init=False)
    #: whole time as estimated when half of the work was done
    estimate: float | None = None

    def __post_init__(self) -> None:
        self.started = self.clock() if self.since is None else self.since

    def seconds(self) -> float:
        """Return the seconds since the search began."""
        return self.clock() - self.started

    def begin(self) -> None:
        """Say that trials begin now."""
        self.begun = self.clock()

    @property
    def wall_per_epoch(self) -> float:
        """Return the seconds that pass for an epoch, all slots busy, with all that is done around it."""
        since = self.started if self.begun is None else self.begun
        return (self.clock() - since) / self.epochs if self.epochs else 0.0

    def count(self, seconds: float, epochs: float = 1.0) -> None:
        """Take the seconds of an epoch, or part of one, that was done."""
        if self.epochs == 0:  # starting processes is no part of an epoch's cost
            self.begun = max(self.begun or self.started, self.clock() - seconds)
        self.epochs += epochs
        self.busy += seconds
        self.longest_epoch = max(self.longest_epoch, seconds / epochs)

    @property
    def reserve(self) -> float:
        """Return the seconds at the end that belong to all that is done after the trials."""
        spent = 0.0 if self.begun is None else self.clock() - self.begun
        return self.end + min(self.later * self.per_image, spent)

    @property
    def end(self) -> float:
        """Return the seconds at the very end that belong to saving, publishing, measuring and telling of the model."""
        # looking at an image takes at most as long as learning from it
        return self.report + 0.5 + self.images[1] * self.per_image

    @property
    def per_image(self) -> float:
        """Return the seconds that a trial takes to learn from an image."""
        return self.wall_per_epoch * self.slots / max(1, self.images[0])

    def left(self) -> float:
        """Return the seconds left for trials; infinite without a timeout."""
        return float("inf") if self.timeout is None else self.timeout - self.reserve - self.seconds()

    def is_over(self) -> bool:
        """Say whether trials must stop now."""
        return self.left() <= 0

    def needed(self, epochs: float) -> float | None:
        """Estimate the seconds that so many epochs take with all slots busy; None before the first epoch is done."""
        return epochs * self.wall_per_epoch if self.epochs else None

    def allows(self, epochs: float, at_once: float) -> bool:
        """Say whether all of `epochs` fit, and so do `at_once` of them one after another, the longest ones."""
        needed = self.needed(epochs)
        return needed is None or (needed <= self.left() and at_once * self.longest_epoch <= self.left())

    def note_progress(self, epochs_left: float) -> tuple[float, float | None]:
        """Return the share of the work that is done and the seconds left; keep the estimate made half way."""
        needed = self.needed(epochs_left)
        done = self.epochs / (self.epochs + epochs_left) if self.epochs + epochs_left else 0.0
        if needed is not None and done >= 0.5 and self.estimate is None:
            self.estimate = self.seconds() + needed
        return done, needed

    def estimate_error(self) -> float | None:
        """Return the estimate made half way over the time it took, less one."""
        return None if self.estimate is None else self.estimate / self.seconds() - 1
