"""Chooses the batch-size candidates of a study: those that data and device allow, or the requested ones.

What fits is estimated once, before the first trial, and stored with the study, because free memory varies and a
resumed study must keep its candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from automl_pt.data.cache.disk import gigabytes
from automl_pt.study.space.space import allowed

#: a run uses the memory that is free at its start, regardless of later ones
CUT = "a trial whose batch does not fit at its start splits it into micro-batches; fewer --workers leave each more"


@dataclass(frozen=True)
class StepMemory:
    """The bytes of memory of a training step: `fixed` for any batch, `per_image` for each of its images."""

    fixed: int
    per_image: float

    def of(self, batch_size: int) -> float:
        """Return the bytes of a step of `batch_size` images."""
        return self.fixed + self.per_image * batch_size


@dataclass(frozen=True)
class BatchSizeCandidates:
    """The batch-size candidates of a study, rising, and a `notice` for the user, if any."""

    sizes: tuple[int, ...]
    notice: str | None = None


def batch_size_candidates(
    asked: Sequence[int] | None,
    epochs: int,
    train_images: int,
    steps: Sequence[StepMemory],
    free: int,
    known: Sequence[int] = (),
    *,
    has_grown: bool = False,
) -> BatchSizeCandidates:
    """Choose the batch sizes for workers with `free` bytes of memory each (0: unknown).

    `asked` are the sizes that the user gave, if any. `steps` are those of the study's backbones, of which the largest
    requirement applies; `known` are the sizes that the study started with, and keeps even if it `has_grown` by a
    backbone that is too large for them. Requested sizes are never removed; of the default candidates the smallest
    always remains.
    """
    sizes = tuple(sorted(set(asked or known or allowed(train_images, epochs))))
    if known and not asked and not has_grown:
        return BatchSizeCandidates(sizes)
    too_large = tuple(size for size in sizes if free and any(step.of(size) > free for step in steps))
    if not too_large:
        return BatchSizeCandidates(sizes)
    need = max(step.of(too_large[0]) for step in steps)
    why = f"a step of {too_large[0]} images needs about {gigabytes(need)}, and each worker has {gigabytes(free)}"
    names = f"batch size{'s' if len(too_large) > 1 else ''} {', '.join(map(str, too_large))}"
    if asked or known:
        return BatchSizeCandidates(sizes, f"{names}: {why}; {CUT}")
    kept = tuple(size for size in sizes if size not in too_large)
    if not kept:
        return BatchSizeCandidates(sizes[:1], f"{sizes[0]} is the only batch size, because {why}; {CUT}")
    return BatchSizeCandidates(kept, f"not searched: {names}, because {why}; --batch-size searches them anyway")
