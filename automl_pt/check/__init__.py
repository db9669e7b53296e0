"""Examines every image before training: what is wrong, where, and how training handles it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from automl_pt.check.alike import copies, near_copies
from automl_pt.check.findings import Finding, Item, Level, finding, refuse
from automl_pt.check.memory import open_memory
from automl_pt.check.quick import quick_check
from automl_pt.check.survey import Progress, SurveyedFile, survey
from automl_pt.dataset import LabeledImages
from automl_pt.images.read import format_of
from automl_pt.layouts.left_out import suffix

__all__ = ["Finding", "Item", "Level", "Report", "check", "quick_check", "refuse"]

#: ratio of the 95th to the 5th percentile of the short sides from which the image size is worth choosing
SIZE_RATIO = 3.0
LONG = 4.0
_FAULTS = ("unreadable", "truncated", "empty", "huge")


@dataclass(frozen=True)
class CheckReport:
    """The result of a check; `read` counts the files that were read, because all others came from the cache."""

    images: int
    read: int
    classes: dict[str, int]
    splits: dict[str, int]
    formats: dict[str, int]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Return whether nothing would stop training or make its figures wrong."""
        return all(found.level == "note" for found in self.findings)


def check(data: LabeledImages, *, max_bad: float = 0.0, progress: Progress | None = None) -> CheckReport:
    """Decode every image completely, in parallel, and compare them; unchanged files come from the cache.

    Undecodable images are a note, not a stop, while their share is at most `max_bad`. As in training, the share is
    computed separately for test images and all others.
    `progress(stage, done, total)` is called during the check.
    The results are cached. Raises OutputError if AUTOML_PT_CACHE names a folder that cannot be written; without the
    default cache folder the check runs uncached, and `notes` says so.
    """
    memory, notes = open_memory()
    with memory:
        seen, read = survey(data, memory, progress)
        alike = near_copies(data, seen, memory)
    findings = [
        *(found for found in quick_check(data) if found.kind != "empty"),
        *_faults(data, seen, max_bad),
        *_lost_classes(data, seen),
        *copies(data, seen),
        *alike,
        *_forms(seen),
        *_sizes(seen),
    ]
    order: tuple[Level, ...] = ("stop", "falsify", "note")
    findings.sort(key=lambda found: order.index(found.level))
    return CheckReport(
        images=len(data),
        read=read,
        classes=dict(sorted(Counter(data.classes[label] for label in data.labels).items())),
        splits=dict(sorted(Counter(split or "unsplit" for split in data.splits or [None] * len(data)).items())),
        formats=dict(sorted(Counter(one.facts.format for one in seen if one.facts.format).items())),
        findings=tuple(findings),
        notes=(*data.notes, *notes),
    )


def _faults(data: LabeledImages, seen: Sequence[SurveyedFile], max_bad: float) -> list[Finding]:
    bad = [one for one in seen if one.facts.fault]
    tested = [data.splits is not None and data.splits[one.index] == "test" for one in seen]
    images, lost = Counter(tested), Counter(tested[one.index] for one in bad)
    few = all(lost[test] <= max_bad * images[test] for test in lost)
    level: Level | None = "note" if few else None
    return [
        found
        for kind in _FAULTS
        for found in finding(kind, [Item((o.name,), o.facts.reason) for o in bad if o.facts.fault == kind], level=level)
    ]


def _lost_classes(data: LabeledImages, seen: Sequence[SurveyedFile]) -> list[Finding]:
    alive = {data.labels[one.index] for one in seen if not one.facts.fault}
    return finding("lost class", [Item((name,)) for label, name in enumerate(data.classes) if label not in alive])


def _forms(seen: Sequence[SurveyedFile]) -> list[Finding]:
    whole = [one for one in seen if not one.facts.fault and one.facts.format]
    cases: dict[str, list[Item]] = {
        "wrong ending": [
            Item((one.name,), f"is {one.facts.format}")
            for one in whole
            if (format_of(suffix(one.name)) or one.facts.format) != one.facts.format
        ],
        "animated": [Item((one.name,), one.facts.format) for one in whole if one.facts.animated],
        "CMYK": [Item((one.name,)) for one in whole if one.facts.mode == "CMYK"],
        "16 bit": [Item((one.name,)) for one in whole if one.facts.sixteen_bit],
        "palette": [Item((one.name,)) for one in whole if one.facts.mode in ("P", "PA") and one.facts.format != "GIF"],
        "alpha": [Item((one.name,)) for one in whole if one.facts.alpha],
        "rotated": [
            Item((one.name,), f"orientation {one.facts.orientation}") for one in whole if one.facts.orientation != 1
        ],
        "complaint": [Item((one.name,), one.facts.complaint) for one in whole if one.facts.complaint],
    }
    return [found for kind, items in cases.items() for found in finding(kind, items)]


def _sizes(seen: Sequence[SurveyedFile]) -> list[Finding]:
    whole = [one for one in seen if not one.facts.fault]
    if not whole:
        return []
    sides = [(min(o.facts.width, o.facts.height), max(o.facts.width, o.facts.height), o.name) for o in whole]
    sides.sort()
    low, middle, high = (sides[round(share * (len(sides) - 1))][0] for share in (0.05, 0.5, 0.95))
    spread: list[Item] = []
    if high >= SIZE_RATIO * low:
        smallest, largest = sides[0], sides[-1]
        detail = f"short sides: 5 % up to {low}, half up to {middle}, 5 % from {high} pixels"
        spread = [Item((smallest[2], largest[2]), f"from {smallest[0]} to {largest[0]} pixels; {detail}")]
    long = [Item((name,), f"{short} x {side} pixels") for short, side, name in sides if side > LONG * short]
    return [*finding("odd sizes", spread), *finding("long", long)]
