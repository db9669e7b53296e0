"""Finds names that are like an unknown one, for "did you mean"."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from difflib import SequenceMatcher

#: least likeness, of 0 to 1, at which a name is suggested, and how much less than the best one it may have
LEAST, WITHIN = 0.6, 0.15


def similar(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """Return at most `limit` known names, the one most like `name` first; upper case, dashes and underscores are equal.

    Names that are much less alike than the first are not returned.
    """
    asked = _plain(name)
    matcher = SequenceMatcher(b=asked)
    found = []
    for candidate in dict.fromkeys(known):
        plain = _plain(candidate)
        matcher.set_seq1(plain)
        if min(matcher.real_quick_ratio(), matcher.quick_ratio()) >= LEAST and (ratio := matcher.ratio()) >= LEAST:
            start, start_as_given = (len(os.path.commonprefix(pair)) for pair in ((plain, asked), (candidate, name)))
            found.append((-ratio, -start, abs(len(plain) - len(asked)), -start_as_given, candidate))
    found.sort()
    return [candidate for ratio, *_, candidate in found if -ratio >= -found[0][0] - WITHIN][:limit]


def did_you_mean(name: str, known: Iterable[str], *, limit: int = 3, show: Callable[[str], str] = repr) -> str:
    """Return "did you mean 'A' or 'B'?" with similar names; empty if there is none."""
    near = similar(name, known, limit)
    return f"did you mean {' or '.join(map(show, near))}?" if near else ""


def _plain(name: str) -> str:
    return name.casefold().replace("_", "-").replace(" ", "-")
