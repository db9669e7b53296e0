"""Normalises class names to one Unicode form, and matches names as a reader would."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from unicodedata import is_normalized, normalize

from automl_pt.core.text import few


def composed(labels: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Return the class name of each label, in Unicode's composed form (NFC), and a note if that changes a label."""
    titles = {label: label if label.isascii() else normalize("NFC", label) for label in set(labels)}
    changed = sorted(title for label, title in titles.items() if title != label)
    if not changed:
        return titles, []
    both = len(titles) - len(set(titles.values()))
    twice = f"; {both} of them occur in two spellings, which are one class" if both else ""
    note = f"class names are in Unicode's composed form (NFC); {len(changed)} are spelled differently in the data"
    return titles, [f"{note}: {few(changed)}{twice}"]


def matched(names: Iterable[str], known: Sequence[str]) -> dict[str, str]:
    """Return for each name the one of `known` that reads the same: by text, Unicode form or number (1.0, 1).

    A name without a match, or with several, is missing.
    """
    exact, alike = set(known), dict[str, list[str]]()
    for name in known:
        alike.setdefault(as_read(name), []).append(name)
    found: dict[str, str] = {}
    for name in names:
        same = [name] if name in exact else alike.get(as_read(name), [])
        if len(same) == 1:
            found[name] = same[0]
    return found


def as_read(name: str) -> str:
    """Return a normal form that is equal for names that read the same."""
    if not name.isascii():
        return name if is_normalized("NFC", name) else normalize("NFC", name)
    whole, point, fraction = name.partition(".")
    is_whole_number = point and whole.removeprefix("-").isdigit() and fraction and not fraction.strip("0")
    return whole if is_whole_number else name
