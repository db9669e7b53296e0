"""Finds images that are the same, byte for byte or to the eye, and where they lie."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from automl_pt.check.facts import THUMB
from automl_pt.check.findings import Finding, Item, finding
from automl_pt.check.survey import Seen
from automl_pt.dataset import LabeledImages

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: perceptual hashes that differ in at most so many of their 64 bits make two images candidates
MAX_BITS = 6
#: candidates are alike when their grey pictures of 16 x 16 pixels differ, on average, by at most this share of the
#: picture's own contrast: photographs saved again at quality 30 or half the size differ by up to 0.025, different
#: clothes of one make (Fashion-MNIST) by 0.05 and more
MAX_SHARE = 0.04
#: flat pictures have no contrast: so many levels of 255 may they differ
MIN_LEVELS = 1.0
#: more pairs of images than this are not compared: some minutes of work
MAX_COMPARISONS = 2 * 10**11
#: pairs listed; a dataset of one repeated picture has more than anyone will read
MAX_PAIRS = 10_000

_BLOCK = 2048


def copies(data: LabeledImages, seen: Sequence[Seen]) -> list[Finding]:
    """Find files with equal content: under two classes, across splits, within one, or before a split is made."""
    by_digest: dict[str, list[Seen]] = defaultdict(list)
    for one in seen:
        if one.digest and not one.facts.fault:
            by_digest[one.digest].append(one)
    groups = [group for group in by_digest.values() if len(group) > 1]
    found: dict[str, list[Item]] = defaultdict(list)
    for group in groups:
        found[_kind_of_copies(data, group)].append(_item(data, group))
    kinds = ("two classes", "copies across", "copies unsplit", "copies within")
    return [result for kind in kinds for result in finding(kind, found[kind])]


def _kind_of_copies(data: LabeledImages, group: Sequence[Seen]) -> str:
    if len({data.labels[one.index] for one in group}) > 1:
        return "two classes"
    splits = {_split(data, one) for one in group}
    if len(splits) > 1:
        return "copies across"
    if splits == {""} and not _kept_together(data, group):
        return "copies unsplit"
    return "copies within"


def near_copies(data: LabeledImages, seen: Sequence[Seen]) -> list[Finding]:
    """Find pairs that look alike across splits, or anywhere before a split; equal files are left to `copies`."""
    able = [one for one in seen if one.facts.look]
    if len(able) * (len(able) - 1) // 2 > MAX_COMPARISONS:
        return finding("unchecked", [Item((), f"{len(able):,} images are too many to find all that look alike")])
    across: list[Item] = []
    unsplit: list[Item] = []
    for one, other in _pairs(able):
        splits = {_split(data, one), _split(data, other)}
        if one.digest != other.digest and (splits == {""} or len(splits) > 1):
            target = unsplit if splits == {""} else across
            if not (splits == {""} and _kept_together(data, (one, other))):
                target.append(_item(data, (one, other)))
        if len(across) + len(unsplit) >= MAX_PAIRS:
            break
    return [*finding("alike across", across), *finding("alike unsplit", unsplit)]


def _pairs(seen: Sequence[Seen]) -> Iterator[tuple[Seen, Seen]]:
    """Yield pairs with near hashes and near pictures, each once; products of matrices do the comparing."""
    bits = np.unpackbits(_bytes(one.facts.look for one in seen)).astype(np.float32).reshape(-1, 64) * 2 - 1
    thumbs = _bytes(one.facts.thumb for one in seen).reshape(-1, THUMB * THUMB)
    for start in range(0, len(seen), _BLOCK):
        for other in range(start, len(seen), _BLOCK):
            # for bits as -1 and 1 the product is 64 less twice the number that differ
            near = bits[start : start + _BLOCK] @ bits[other : other + _BLOCK].T >= 64 - 2 * MAX_BITS
            # np.nonzero of a matrix takes fifteen times as long as of its rows laid end to end
            rows, columns = np.divmod(np.flatnonzero(near), near.shape[1])
            rows, columns = rows + start, columns + other
            rows, columns = rows[rows < columns], columns[rows < columns]
            for low in range(0, len(rows), _BLOCK):
                yield from _verified(seen, thumbs, rows[low : low + _BLOCK], columns[low : low + _BLOCK])


def _verified(
    seen: Sequence[Seen], thumbs: NDArray[np.uint8], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> Iterator[tuple[Seen, Seen]]:
    apart = np.abs(thumbs[rows].astype(np.int16) - thumbs[columns]).mean(axis=1)
    near = apart <= np.maximum(MIN_LEVELS, MAX_SHARE * thumbs[rows].std(axis=1))
    for row, column in zip(rows[near], columns[near], strict=True):
        yield seen[row], seen[column]


def _bytes(texts: Iterable[str]) -> NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex("".join(texts)), np.uint8)


def _split(data: LabeledImages, one: Seen) -> str:
    return (data.splits[one.index] or "") if data.splits is not None else ""


def _kept_together(data: LabeledImages, group: Sequence[Seen]) -> bool:
    """Return whether groups keep the images in one split, whatever it is."""
    return data.groups is not None and len({data.groups[one.index] for one in group}) == 1


def _item(data: LabeledImages, group: Sequence[Seen]) -> Item:
    classes = sorted({data.classes[data.labels[one.index]] for one in group})
    splits = sorted({_split(data, one) for one in group} - {""})
    told = ([f"classes {', '.join(classes)}"] if len(classes) > 1 else []) + ([" and ".join(splits)] if splits else [])
    return Item(tuple(one.name for one in group), "; ".join(told))
