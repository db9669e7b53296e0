"""Tracks the time limit of a search, and estimates the time that it still needs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Budget:
    """Measures time by `clock`, from `since` or from its creation.

    `images` are the numbers of images in an epoch, and in the final evaluation.
    """

    timeout: float | None
    slots: int = 1
    images: tuple[int, int] = (1, 0)
    clock: Callable[[], float] = time.monotonic
    since: float | None = None
    epochs: float = 0.0
    #: when the first trial started; earlier work is not part of an epoch's cost
    begun: float | None = None
    longest_epoch: float = 0.0
    #: seconds of epochs, and of saving after them, summed over all slots
    busy: float = 0.0
    #: seconds at the end that are reserved for the report
    report: float = 0.0
    #: images to train on after the trials; this gets at most as much time as the trials had
    later: int = 0
    started: float = field(init=False)
    #: total time as estimated when half of the work was done
    estimate: float | None = None

    def __post_init__(self) -> None:
        self.started = self.clock() if self.since is None else self.since

    def seconds(self) -> float:
        """Return the seconds since the search began."""
        return self.clock() - self.started

    def begin(self) -> None:
        """Record that the trials start now."""
        self.begun = self.clock()

    @property
    def wall_per_epoch(self) -> float:
        """Return the wall seconds per epoch with all slots busy, overhead included."""
        since = self.started if self.begun is None else self.begun
        return (self.clock() - since) / self.epochs if self.epochs else 0.0

    def count(self, seconds: float, epochs: float = 1.0) -> None:
        """Add the seconds of an epoch, or of part of one."""
        if self.epochs == 0:  # the time to start processes is not part of an epoch's cost
            self.begun = max(self.begun or self.started, self.clock() - seconds)
        self.epochs += epochs
        self.busy += seconds
        self.longest_epoch = max(self.longest_epoch, seconds / epochs)

    @property
    def reserve(self) -> float:
        """Return the seconds at the end that are reserved for the steps after the trials."""
        spent = 0.0 if self.begun is None else self.clock() - self.begun
        return self.end + min(self.later * self.per_image, spent)

    @property
    def end(self) -> float:
        """Return the seconds reserved at the very end for saving, publishing, evaluating and reporting the model."""
        # evaluating an image takes at most as long as training on it
        return self.report + 0.5 + self.images[1] * self.per_image

    @property
    def per_image(self) -> float:
        """Return a trial's training seconds per image."""
        return self.wall_per_epoch * self.slots / max(1, self.images[0])

    def left(self) -> float:
        """Return the seconds left for trials; infinite without a timeout."""
        return float("inf") if self.timeout is None else self.timeout - self.reserve - self.seconds()

    def is_over(self) -> bool:
        """Return whether trials must stop now."""
        return self.left() <= 0

    def needed(self, epochs: float) -> float | None:
        """Estimate the seconds that these epochs take with all slots busy; None before the first epoch ended."""
        return epochs * self.wall_per_epoch if self.epochs else None

    def allows(self, epochs: float, at_once: float) -> bool:
        """Return whether all of `epochs` fit, and so do `at_once` of them in sequence, the longest trials."""
        needed = self.needed(epochs)
        return needed is None or (needed <= self.left() and at_once * self.longest_epoch <= self.left())

    def note_progress(self, epochs_left: float) -> tuple[float, float | None]:
        """Return the finished share of the work and the seconds left; store the estimate at half of the work."""
        needed = self.needed(epochs_left)
        done = self.epochs / (self.epochs + epochs_left) if self.epochs + epochs_left else 0.0
        if needed is not None and done >= 0.5 and self.estimate is None:
            self.estimate = self.seconds() + needed
        return done, needed

    def estimate_error(self) -> float | None:
        """Return the estimate at half of the work, divided by the actual time, minus one."""
        return None if self.estimate is None else self.estimate / self.seconds() - 1
