"""Finds pairs of images that look alike by comparing all with all, in matrix products."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from automl_pt.check.facts import THUMB, Facts

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
    apart = np.abs(thumbs[rows].astype(np.int16) - thumbs[columns]).mean(axis=1)
    near = apart <= np.maximum(MIN_LEVELS, MAX_SHARE * thumbs[rows].std(axis=1))
    yield from zip(rows[near].tolist(), columns[near].tolist(), strict=True)


def _bytes(texts: Iterable[str]) -> NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex("".join(texts)), np.uint8)
