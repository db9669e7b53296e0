"""Finds files whose names differ from a table's in Unicode form, because the table may come from another system."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from unicodedata import normalize


def as_on_disk(root: Path, names: Sequence[str]) -> list[str]:
    """Return each name as spelled on disk below `root` if it differs in Unicode form only; others unchanged."""
    listed: dict[Path, dict[str, list[str]]] = {}
    return [
        name if name.isascii() or os.path.exists(root / name) else _respelled(root, name, listed) or name
        for name in names
    ]


def _respelled(root: Path, name: str, listed: dict[Path, dict[str, list[str]]]) -> str | None:
    folder, found = root, list[str]()
    for part in name.split("/"):
        if folder not in listed:
            listed[folder] = _listing(folder)
        same = listed[folder].get(normalize("NFC", part), [])
        if len(same) != 1 and part not in same:
            return None
        found.append(part if part in same else same[0])
        folder = folder / found[-1]
    return "/".join(found)


def _listing(folder: Path) -> dict[str, list[str]]:
    """Return the names in a folder by their composed form; empty if it is not a folder."""
    names: dict[str, list[str]] = {}
    if os.path.isdir(folder):
        for name in os.listdir(folder):
            names.setdefault(normalize("NFC", name), []).append(name)
    return names
