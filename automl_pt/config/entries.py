"""Entries of `search` that stand for a setting of the search itself: learning rate, batch size, backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from automl_pt.core.search_entries import as_texts

#: searched by a setting of its own; what an entry for it has to look like
OWN_SETTINGS = {
    "lr": ("lr", "lr is searched on a log scale, LOW:HIGH such as 1e-4:1.0, and is given once, here or by --lr"),
    "batch_size": ("batch_sizes", "batch_size takes sizes such as 8,16,32, given once, here or by --batch-size"),
    "backbone": ("backbones", "backbone takes names separated by commas, given once, here or by --backbone"),
}


def with_own_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings whose `search` no longer has the entries of lr, batch_size and backbone: they set lr and so on.

    One that is set already, or cannot be read, stays: the check of the entries says why.
    """
    texts = as_texts(settings["search"])
    moved, rest = dict[str, Any](), list[Any]()
    for text in texts if isinstance(texts, list | tuple) else ():
        name, _, values = (part.strip() for part in str(text).partition("="))
        target = OWN_SETTINGS[name][0] if name in OWN_SETTINGS else None
        found = _own_values(name, values) if target is not None and target not in {*settings, *moved} else None
        if target is None or found is None:
            rest.append(text)
        else:
            moved[target] = found
    return {**settings, **moved, "search": tuple(rest) if isinstance(texts, list | tuple) else texts}


def _own_values(name: str, text: str) -> tuple[Any, ...] | None:
    """Read the values of one of `OWN_SETTINGS`; None where they cannot be read. A range of batch sizes is doubled."""
    try:
        if name == "backbone":
            return tuple(part.strip() for part in text.split(",") if part.strip()) or None
        if name == "lr":
            low, _, high = text.removesuffix(":log").partition(":")
            return float(low), float(high or low)
        if ":" not in text:
            return tuple(int(part) for part in text.split(","))
        first, last = (int(part) for part in text.removesuffix(":log").split(":"))
        return tuple(first * 2**power for power in range(32) if first * 2**power <= last) if first > 0 else None
    except ValueError:
        return None
