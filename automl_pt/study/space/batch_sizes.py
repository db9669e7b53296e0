"""Which batch sizes a study offers: those that the data and the device allow, or those that were asked for.

What fits is estimated once, before the first trial, and kept with the study: free memory changes from hour to hour, and
a study that goes on shall offer what it offered before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from automl_pt.config import SearchConfig
from automl_pt.data.cache.disk import gigabytes
from automl_pt.study.space.space import allowed

#: a run asks for the memory that is free when it begins, whatever the others will want of it
CUT = "a trial whose batch does not fit when it begins cuts it into micro-batches; fewer --workers leave each more"


@dataclass(frozen=True)
class StepMemory:
    """The bytes that a training step takes: `fixed` whatever the batch, `per_image` for each of its images."""

    fixed: int
    per_image: float

    def of(self, batch_size: int) -> float:
        """Return the bytes of a step of `batch_size` images."""
        return self.fixed + self.per_image * batch_size


@dataclass(frozen=True)
class BatchSizeCandidates:
    """The batch sizes of a study, rising; `notice` says what a person should know of them, None: nothing."""

    sizes: tuple[int, ...]
    notice: str | None = None


def batch_size_candidates(
    config: SearchConfig,
    train_images: int,
    steps: Sequence[StepMemory],
    free: int,
    known: Sequence[int] = (),
    *,
    has_grown: bool = False,
) -> BatchSizeCandidates:
    """Choose the batch sizes for workers with `free` bytes of memory each (0: unknown).

    `steps` are those of the study's backbones, of which the greediest counts; `known` are the sizes that the study was
    begun with, and keeps even where it `has_grown` by a backbone that is too large for them. Sizes that were asked for
    are never left out; of others the smallest always stays.
    """
    asked = config.batch_sizes is not None
    sizes = tuple(sorted(set(config.batch_sizes or known or allowed(train_images, config.epochs))))
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
        return BatchSizeCandidates(sizes[:1], f"no batch size but {sizes[0]} is offered, for {why}; {CUT}")
    return BatchSizeCandidates(kept, f"not offered: {names}, for {why}; --batch-size offers them all the same")
