"""Examines every image of a dataset, in parallel, reading only files that are not cached."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from automl_pt.check.facts import Facts
from automl_pt.check.memory import Memory, Stamp, stamp
from automl_pt.check.quick import are_files, name_of
from automl_pt.core.cores import available_cores
from automl_pt.dataset import LabeledImages
from automl_pt.images.read import UnreadableImage, read

Progress = Callable[[str, int, int], None]

_STAGE = "examining images"


@dataclass(frozen=True)
class SurveyedFile:
    """One image with its facts: its index in the data, name, content digest ("" if unreadable) and facts."""

    index: int
    name: str
    digest: str
    facts: Facts


def survey(data: LabeledImages, memory: Memory, progress: Progress | None = None) -> tuple[list[SurveyedFile], int]:
    """Return every image with its facts, in order, and how many files were read."""
    if not are_files(data):
        return list(_of_arrays(data)), 0
    stamps = [_stamp(image) for image in data.images]  # type: ignore[arg-type]  # all are paths, as the first is
    known = memory.recall(one for one in stamps if one is not None)
    found: list[SurveyedFile | None] = [
        SurveyedFile(index, name_of(data, index), *known[one[0]]) if one is not None and one[0] in known else None
        for index, one in enumerate(stamps)
    ]
    new = [index for index, seen in enumerate(found) if seen is None]
    for count, (index, digest, facts) in enumerate(_examined(data, new, memory), 1):
        found[index] = SurveyedFile(index, name_of(data, index), digest, facts)
        one = stamps[index]
        if one is not None and digest:
            memory.keep(one, digest, facts)
        if progress is not None:
            progress(_STAGE, len(data) - len(new) + count, len(data))
    return [seen for seen in found if seen is not None], len(new)


def _stamp(path: Path) -> Stamp | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return stamp(path, status) if stat.S_ISREG(status.st_mode) else None


def _examined(data: LabeledImages, indices: list[int], memory: Memory) -> Iterator[tuple[int, str, Facts]]:
    """Examine files in threads, because decoders and hashes release Python's lock; a bounded number is in flight."""
    if not indices:
        return
    cores = available_cores()
    with ThreadPoolExecutor(cores) as pool:
        for start in range(0, len(indices), 64 * cores):
            yield from pool.map(lambda index: _facts(data, index, memory), indices[start : start + 64 * cores])


def _facts(data: LabeledImages, index: int, memory: Memory) -> tuple[int, str, Facts]:
    from automl_pt.check.examine import examine

    path = data.images[index]
    assert isinstance(path, Path), "_of_arrays handles arrays"
    try:
        content = read(path)
    except UnreadableImage as error:
        return index, "", Facts(fault=error.kind, reason=error.reason)
    digest = hashlib.sha256(content).hexdigest()
    return index, digest, memory.facts(digest) or examine(content, path)


def _of_arrays(data: LabeledImages) -> Iterator[SurveyedFile]:
    """Examine images given as pixels: only copies, near copies and sizes can be found."""
    import numpy as np

    from automl_pt.check.examine import fingerprints
    from automl_pt.images.formats import picture

    for index in range(len(data)):
        name = name_of(data, index)
        try:
            rgb = picture(data.images[index], name=name)
        except UnreadableImage as error:
            yield SurveyedFile(index, name, "", Facts(fault=error.kind, reason=error.reason))
        else:
            own = np.asarray(data.images[index])
            told = rgb if own.dtype == np.uint8 else own  # what is shown of other types has lost their scale
            digest = hashlib.sha256(repr(told.shape).encode() + told.tobytes()).hexdigest()
            look, thumb = fingerprints(rgb)
            yield SurveyedFile(
                index, name, digest, Facts(width=rgb.shape[1], height=rgb.shape[0], look=look, thumb=thumb)
            )
