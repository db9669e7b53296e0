"""Findings of `check` in the data, as far as they are known without reading every image again."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from automl_pt.check import check
from automl_pt.check.alike import copies
from automl_pt.check.facts import Facts
from automl_pt.check.findings import Finding
from automl_pt.check.memory import Memory, stamp
from automl_pt.check.quick import are_files, quick_check
from automl_pt.check.survey import SurveyedFile
from automl_pt.core.text import counted
from automl_pt.data.prepare import Data
from automl_pt.dataset import LabeledImages
from automl_pt.reporting.sections import Section

#: arrays are checked again each time, which takes time
MAX_ARRAYS = 5_000
MAX_CASES = 100
_LEVELS = {"stop": 0, "falsify": 1, "note": 2}


def check_section(data: Data) -> Section:
    """List the findings on the images of the study's split; the note says if the pictures were not checked."""
    images = _with_splits(data)
    if whole := _is_remembered(images):
        findings: Sequence[Finding] = check(images, max_bad=data.max_bad).findings
        note = f"All {len(images):,} images were checked."
    else:
        findings = [*quick_check(images), *copies(images, _by_digest(data, images))]
        asked = f"automl-pt check {shlex.quote(data.manifest.source)}"
        note = (
            f"Names, counts and equal files among {len(images):,} images were checked, not the pictures: "
            f"`{asked}` decodes and compares all of them, and later reports show its findings."
        )
    if not findings:
        note += " Nothing was found."
    if data.manifest.left_out:
        note += f" {counted(len(data.manifest.left_out), 'file')} found in the data are not in the split."
    ordered = sorted(findings, key=lambda found: (_LEVELS[found.level], found.kind))
    return {"whole": whole, "note": note, "findings": [_plain(found) for found in ordered]}


def _plain(found: Finding) -> dict[str, object]:
    return {
        "kind": found.kind,
        "level": found.level,
        "what": found.what,
        "training": found.training,
        "todo": found.todo,
        "count": len(found.items),
        "cases": [str(item) for item in found.items[:MAX_CASES]],
    }


def _with_splits(data: Data) -> LabeledImages:
    """Return the images with the splits they have in the study, which are not always those of the source."""
    split_of = {entry.name: entry.split for entry in data.manifest.entries}
    inventory = data.inventory
    return replace(inventory.images, splits=[split_of.get(name) for name in inventory.names])


def _by_digest(data: Data, images: LabeledImages) -> list[SurveyedFile]:
    digests = {entry.name: entry.sha256 for entry in data.manifest.entries}
    names = enumerate(data.inventory.names)
    return [SurveyedFile(index, name, digests.get(name, ""), Facts()) for index, name in names if index < len(images)]


def _is_remembered(images: LabeledImages) -> bool:
    """Return whether a check is quick: all files are in its cache, or there are few arrays."""
    if not are_files(images):
        return len(images) <= MAX_ARRAYS
    stamps = []
    for path in images.images:
        if isinstance(path, Path):
            with suppress(OSError, ValueError):  # a missing file is not in the cache
                stamps.append(stamp(path, os.stat(path)))
    with Memory() as memory:
        return len(memory.recall(stamps)) == len(images)
