"""Finds images that are equal byte for byte, or look alike, and the splits and classes that they are in."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from automl_pt.check.facts import THUMB, Facts
from automl_pt.check.findings import Finding, Item, finding
from automl_pt.check.memory import Memory
from automl_pt.check.survey import SurveyedFile
from automl_pt.dataset import LabeledImages

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: limit of compared pairs of images, some minutes of work
MAX_COMPARISONS = 2 * 10**11
#: version of the algorithm in `pairs`; results of other versions are computed again
PAIRS = "1"
#: limit of listed pairs, because a dataset of one repeated picture has millions
MAX_PAIRS = 10_000


def copies(data: LabeledImages, seen: Sequence[SurveyedFile]) -> list[Finding]:
    """Find files with equal content: in two classes, across splits, within one split, or before a split is made."""
    by_digest: dict[str, list[SurveyedFile]] = defaultdict(list)
    for one in seen:
        if one.digest and not one.facts.fault:
            by_digest[one.digest].append(one)
    groups = [group for group in by_digest.values() if len(group) > 1]
    found: dict[str, list[Item]] = defaultdict(list)
    for group in groups:
        found[_kind_of_copies(data, group)].append(_item(data, group))
    kinds = ("two classes", "copies across", "copies unsplit", "copies within")
    return [result for kind in kinds for result in finding(kind, found[kind])]


def _kind_of_copies(data: LabeledImages, group: Sequence[SurveyedFile]) -> str:
    if len({data.labels[one.index] for one in group}) > 1:
        return "two classes"
    splits = {_split(data, one) for one in group}
    if len(splits) > 1:
        return "copies across"
    if splits == {""} and not _kept_together(data, group):
        return "copies unsplit"
    return "copies within"


def near_copies(data: LabeledImages, seen: Sequence[SurveyedFile], memory: Memory | None = None) -> list[Finding]:
    """Find pairs that look alike across splits, under two classes, or before a split; `copies` finds equal files.

    With a `memory`, pairs computed earlier are reused.
    """
    able = [one for one in seen if one.facts.look]
    if len(able) * (len(able) - 1) // 2 > MAX_COMPARISONS:
        return finding("unchecked", [Item((), f"{len(able):,} images are too many to compare for similar ones")])
    across, unsplit, classes = list[Item](), list[Item](), list[Item]()
    for one, other in _pairs(able, memory):
        splits = {_split(data, one), _split(data, other)}
        if one.digest != other.digest and data.labels[one.index] != data.labels[other.index]:
            classes.append(_item(data, (one, other)))
        elif one.digest != other.digest and (splits == {""} or len(splits) > 1):
            target = unsplit if splits == {""} else across
            if not (splits == {""} and _kept_together(data, (one, other))):
                target.append(_item(data, (one, other)))
        if len(across) + len(unsplit) + len(classes) >= MAX_PAIRS:
            break
    return [
        *finding("alike classes", classes),
        *finding("alike across", across),
        *finding("alike unsplit", unsplit),
    ]


def _pairs(seen: Sequence[SurveyedFile], memory: Memory | None) -> Iterator[tuple[SurveyedFile, SurveyedFile]]:
    """Yield the pairs that look alike; stored, if there are few, under the hashes of all images."""
    looks = hashlib.sha256(PAIRS.encode())
    looks.update("".join(one.facts.look + one.facts.thumb for one in seen).encode())
    key = looks.hexdigest()
    known = memory.pairs(key) if memory is not None else None
    if known is not None:
        yield from ((seen[one], seen[other]) for one, other in known)
        return

    found: list[tuple[int, int]] = []
    for one, other in near_pairs([one.facts for one in seen]):
        if len(found) <= MAX_PAIRS:
            found.append((one, other))
        yield seen[one], seen[other]
    if memory is not None and len(found) <= MAX_PAIRS:
        memory.keep_pairs(key, found)


def _split(data: LabeledImages, one: SurveyedFile) -> str:
    return (data.splits[one.index] or "") if data.splits is not None else ""


def _kept_together(data: LabeledImages, group: Sequence[SurveyedFile]) -> bool:
    """Return whether groups keep the images in one split, whichever it is."""
    return data.groups is not None and len({data.groups[one.index] for one in group}) == 1


def _item(data: LabeledImages, group: Sequence[SurveyedFile]) -> Item:
    classes = sorted({data.classes[data.labels[one.index]] for one in group})
    splits = sorted({_split(data, one) for one in group} - {""})
    details = [f"classes {', '.join(classes)}"] if len(classes) > 1 else []
    details += [" and ".join(splits)] if splits else []
    return Item(tuple(one.name for one in group), "; ".join(details))


#: two images are candidates if at most this many of the 64 bits of their perceptual hashes differ
MAX_BITS = 6
#: candidates are alike if their grey pictures of 16 x 16 pixels differ, on average, by at most this share of the
#: picture's own contrast: photographs saved again at quality 30 or half the size differ by up to 0.025, different
#: clothes of one type (Fashion-MNIST) by 0.05 and more
MAX_SHARE = 0.04
#: the allowed difference in levels of 255 for pictures without contrast
MIN_LEVELS = 1.0

_BLOCK = 2048


def near_pairs(facts: Sequence[Facts]) -> Iterator[tuple[int, int]]:
    """Yield each pair of indices of images with near hashes and near pictures, once."""
    import numpy as np  # late, because a check whose answer is remembered compares nothing

    bits = np.unpackbits(_bytes(one.look for one in facts)).astype(np.float32).reshape(-1, 64) * 2 - 1
    thumbs = _bytes(one.thumb for one in facts).reshape(-1, THUMB * THUMB)
    for start in range(0, len(facts), _BLOCK):
        for other in range(start, len(facts), _BLOCK):
            # with bits as -1 and 1 the product is 64 minus twice the number of differing bits
            near = bits[start : start + _BLOCK] @ bits[other : other + _BLOCK].T >= 64 - 2 * MAX_BITS
            # np.nonzero takes fifteen times as long for a matrix as for its flattened rows
            rows, columns = np.divmod(np.flatnonzero(near), near.shape[1])
            rows, columns = rows + start, columns + other
            rows, columns = rows[rows < columns], columns[rows < columns]
            for low in range(0, len(rows), _BLOCK):
                yield from _verified(thumbs, rows[low : low + _BLOCK], columns[low : low + _BLOCK])


def _verified(
    thumbs: NDArray[np.uint8], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> Iterator[tuple[int, int]]:
    import numpy as np

    apart = np.abs(thumbs[rows].astype(np.int16) - thumbs[columns]).mean(axis=1)
    near = apart <= np.maximum(MIN_LEVELS, MAX_SHARE * thumbs[rows].std(axis=1))
    yield from zip(rows[near].tolist(), columns[near].tolist(), strict=True)


def _bytes(texts: Iterable[str]) -> NDArray[np.uint8]:
    import numpy as np

    return np.frombuffer(bytes.fromhex("".join(texts)), np.uint8)
