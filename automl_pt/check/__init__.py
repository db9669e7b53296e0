"""Looks at every image before training: what is wrong, where, and what training would do about it."""

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
from automl_pt.images.read import SUFFIXES
from automl_pt.layouts.left_out import suffix

__all__ = ["Finding", "Item", "Level", "Report", "check", "quick_check", "refuse"]

#: the 95th percentile of the short sides against the 5th, from where the choice of the image size matters
SIZE_RATIO = 3.0
LONG = 4.0
_FAULTS = ("unreadable", "truncated", "empty", "huge")


@dataclass(frozen=True)
class CheckReport:
    """What a check found; `read` counts the files that had to be read, the others being remembered."""

    images: int
    read: int
    classes: dict[str, int]
    splits: dict[str, int]
    formats: dict[str, int]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Return whether nothing found would stop training or falsify its figures."""
        return all(found.level == "note" for found in self.findings)


def check(data: LabeledImages, *, max_bad: float = 0.0, progress: Progress | None = None) -> CheckReport:
    """Decode every image whole, in parallel, and compare them; unchanged files are not read again.

    Images that cannot be decoded are a note, rather than a stop, while their share is at most `max_bad`, as training
    counts it: of the images that are no test images, and of the test images, each for themselves.
    `progress(stage, done, total)` is called as it goes on.
    What was found is remembered in the cache folder. Raises OutputError when AUTOML_PT_CACHE names one that cannot be
    written; the default folder is done without, and `notes` says so.
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
            if SUFFIXES.get(suffix(one.name), one.facts.format) != one.facts.format
        ],
        "animated": [Item((one.name,), one.facts.format) for one in whole if one.facts.animated],
        "CMYK": [Item((one.name,)) for one in whole if one.facts.mode == "CMYK"],
        "16 bit": [Item((one.name,), one.facts.mode) for one in whole if one.facts.sixteen_bit],
        "palette": [Item((one.name,)) for one in whole if one.facts.mode in ("P", "PA") and one.facts.format != "GIF"],
        "alpha": [Item((one.name,), one.facts.mode) for one in whole if one.facts.alpha],
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
        spread = [Item((smallest[2], largest[2]), f"{smallest[0]} and {largest[0]} pixels, the extremes; {detail}")]
    long = [Item((name,), f"{short} x {side} pixels") for short, side, name in sides if side > LONG * short]
    return [*finding("odd sizes", spread), *finding("long", long)]
