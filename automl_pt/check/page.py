"""The contact sheet: one self-contained HTML page with pictures of the findings and what to do about each."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from html import escape

import numpy as np
from PIL import Image

from automl_pt.check import CheckReport
from automl_pt.check.findings import Finding, Item
from automl_pt.check.quick import name_of
from automl_pt.core.errors import DatasetError
from automl_pt.core.text import printable
from automl_pt.dataset import LabeledImages
from automl_pt.images.formats import picture
from automl_pt.reporting.html.marked import MARK

#: longest side of a picture in pixels
SIDE = 256
#: cases shown of one kind, and names of one case; the JSON output lists all
MAX_ITEMS = 24
MAX_NAMES = 4

_LEVELS = {"stop": "stops training", "falsify": "makes figures wrong", "note": "note"}
_STYLE = """
:root { color-scheme: light dark; --paper: #fcfcfa; --panel: #f0f2f0; --ink: #1c2126; --faint: #5c6770; --stop: #b3261e;
  --falsify: #9a5b00 }
@media (prefers-color-scheme: dark) { :root { --paper: #14181b; --panel: #1d2327; --ink: #e6e8e6; --faint: #98a2a9;
  --stop: #e2675c; --falsify: #d39a3a } }
* { box-sizing: border-box }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 1.5rem auto; max-width: 92rem; padding: 0 1rem; color: var(--ink);
  background: var(--paper); overflow-wrap: anywhere }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2rem 0 .2rem } p { margin: .2rem 0 .5rem }
.level { border-radius: .3rem; padding: .1rem .5rem; font-size: .85rem; color: #fff; background: #5c6770 }
.stop .level { background: var(--stop) } .falsify .level { background: var(--falsify) }
.cases { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr)); gap: .9rem }
figure { margin: 0; padding: .6rem; background: var(--panel); border-radius: .35rem; min-width: 0 }
figure.several { grid-column: span 2 }
@media (max-width: 560px) { figure.several { grid-column: auto } }
figure div { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 6rem), 1fr)); gap: .4rem }
img { display: block; width: 100%; max-height: 22rem; object-fit: contain; border-radius: .2rem }
figcaption { font-size: .82rem; margin-top: .35rem } .none { color: var(--faint) } .todo { font-weight: 600 }
"""


def contact_sheet(report: CheckReport, data: LabeledImages, title: str) -> str:
    """Return the page; file and class names are escaped, nothing is downloaded and no script runs."""
    index = {name_of(data, position): position for position in range(len(data))}
    count = f"{report.images:,} images, {len(report.classes)} classes"
    verdict = "no problems found" if report.ok else "problems found"
    sections = [_section(found, data, index) for found in report.findings]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            MARK,
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">",
            f"<title>{_text(title)}: check</title><style>{_STYLE}</style></head><body>",
            f"<h1>{_text(title)}</h1><p>{count}: {verdict}.</p>",
            *(f"<p>{_text(note)}</p>" for note in report.notes),
            *(sections or ["<p>No problems found.</p>"]),
            "</body></html>\n",
        ]
    )


def _section(found: Finding, data: LabeledImages, index: Mapping[str, int]) -> str:
    shown = found.items[:MAX_ITEMS]
    rest = f"<p>and {len(found.items) - len(shown):,} more</p>" if len(found.items) > len(shown) else ""
    cases = "".join(_case(item, data, index) for item in shown)
    return (
        f'<section class="{found.level}"><h2><span class="level">{_LEVELS[found.level]}</span> '
        f"{_text(found.what)} ({len(found.items):,})</h2><p>Training {_text(found.training)}.</p>"
        f'<p class="todo">To do: {_text(found.todo)}.</p>'
        f'<div class="cases">{cases}</div>{rest}</section>'
    )


def _case(item: Item, data: LabeledImages, index: Mapping[str, int]) -> str:
    pictures = "".join(_pictures(item, data, index))
    several = ' class="several"' if len(item.names) > 1 else ""
    return f"<figure{several}><div>{pictures}</div><figcaption>{_text(item)}</figcaption></figure>"


def _pictures(item: Item, data: LabeledImages, index: Mapping[str, int]) -> Iterator[str]:
    for name in item.names[:MAX_NAMES]:
        if name in index:
            picture = _picture(data, index[name])
            yield f'<img alt="" src="data:image/jpeg;base64,{picture}">' if picture else '<span class="none">-</span>'


def _picture(data: LabeledImages, position: int) -> str | None:
    """Return a small JPEG in base64, or None for an image that cannot be decoded."""
    try:
        pixels = picture(data.images[position], at_least=SIDE)
    except DatasetError:
        return None
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((SIDE, SIDE))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=80)
    return base64.b64encode(content.getvalue()).decode("ascii")


def _text(value: object) -> str:
    return escape(printable(value))
