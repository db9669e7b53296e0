"""Handles images that cannot be decoded: skipped and listed where allowed, else an error before the first epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from automl_pt.core.errors import InvalidDatasetError
from automl_pt.core.text import few
from automl_pt.data.manifest import LeftOut, Manifest, by_name


def require_few(bad: Mapping[str, str], count: int, max_bad: float) -> None:
    """Raise InvalidDatasetError, naming them, if `bad` (name to reason) are more than `max_bad` of `count` images."""
    if len(bad) <= max_bad * count:
        return
    # rounded up, so that the suggested value is sufficient
    share = math.ceil(1000 * len(bad) / count) / 1000
    allowed = "none are" if max_bad == 0 else f"{max_bad:.1%} are"
    leave = f", or skip them with --max-bad {share:g}" if share < 1 else ""
    raise InvalidDatasetError(
        f"too many images are unreadable; {allowed} allowed",
        given=f"{len(bad)} of {count} ({len(bad) / count:.1%}): {few(f'{name}: {why}' for name, why in bad.items())}",
        remedy=f"repair or remove them (`automl-pt check` lists all){leave}",
    )


def leave_out(manifest: Manifest, bad: Mapping[str, str]) -> Manifest:
    """Move the entries called `bad` to the list of skipped files, with their reasons."""
    kept = tuple(entry for entry in manifest.entries if entry.name not in bad)
    # those of the test split are handled when it is read, because a search must not depend on them
    dropped = [
        LeftOut(entry.name, bad[entry.name], entry.sha256 if entry.sha256 and entry.split != "test" else None)
        for entry in manifest.entries
        if entry.name in bad
    ]
    left_out = sorted([*manifest.left_out, *dropped], key=lambda item: by_name(item.name))
    return replace(manifest, entries=kept, left_out=tuple(left_out))
