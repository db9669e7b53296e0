"""The contact sheet: one HTML page that needs nothing else, with small pictures of what was found."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from automl_pt.check import CheckReport
from automl_pt.check.findings import Finding, Item
from automl_pt.check.quick import name_of
from automl_pt.core.errors import DatasetError
from automl_pt.core.text import printable
from automl_pt.dataset import LabeledImages
from automl_pt.images.decode import as_rgb, decode_rgb, read
from automl_pt.reporting.html.marked import MARK

#: longest side of a small picture in pixels
SIDE = 112
#: cases shown of one kind, and names shown of one case; the JSON output lists all
MAX_ITEMS = 24
MAX_NAMES = 4

_LEVELS = {"stop": "stops training", "falsify": "falsifies figures", "note": "note"}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1c2126 }
h1 { font-size: 1.4rem } h2 { font-size: 1.05rem; margin: 2rem 0 0 } p { margin: .2rem 0 .6rem }
.level { border-radius: .3rem; padding: .1rem .5rem; font-size: .8rem; color: #fff; background: #5c6770 }
.stop .level { background: #b3261e } .falsify .level { background: #9a5b00 }
.cases { display: flex; flex-wrap: wrap; gap: .8rem } figure { margin: 0; padding: .5rem; background: #f2f4f6 }
figure div { display: flex; gap: .4rem } img { display: block; image-rendering: auto }
figcaption { font-size: .78rem; max-width: 24rem; overflow-wrap: anywhere } .none { color: #5c6770 }
"""


def contact_sheet(report: CheckReport, data: LabeledImages, title: str) -> str:
    """Return the page; file and class names are escaped, nothing is loaded from elsewhere and no script runs."""
    index = {name_of(data, position): position for position in range(len(data))}
    count = f"{report.images:,} images, {len(report.classes)} classes"
    verdict = "nothing that stops or falsifies training" if report.ok else "see what stops or falsifies training"
    sections = [_section(found, data, index) for found in report.findings]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            MARK,
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">",
            f"<title>{_text(title)}: check</title><style>{_STYLE}</style></head><body>",
            f"<h1>{_text(title)}</h1><p>{count}: {verdict}.</p>",
            *(f"<p>{_text(note)}</p>" for note in report.notes),
            *(sections or ["<p>Nothing was found.</p>"]),
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
        f'<div class="cases">{cases}</div>{rest}</section>'
    )


def _case(item: Item, data: LabeledImages, index: Mapping[str, int]) -> str:
    pictures = "".join(_pictures(item, data, index))
    return f"<figure><div>{pictures}</div><figcaption>{_text(item)}</figcaption></figure>"


def _pictures(item: Item, data: LabeledImages, index: Mapping[str, int]) -> Iterator[str]:
    for name in item.names[:MAX_NAMES]:
        if name in index:
            picture = _picture(data, index[name])
            yield f'<img alt="" src="data:image/jpeg;base64,{picture}">' if picture else '<span class="none">-</span>'


def _picture(data: LabeledImages, position: int) -> str | None:
    """Return a small JPEG in base64, or None for an image that cannot be decoded."""
    try:
        source = data.images[position]
        pixels = decode_rgb(read(source), source, at_least=SIDE) if isinstance(source, Path) else as_rgb(source, "")
    except DatasetError:
        return None
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((SIDE, SIDE))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=80)
    return base64.b64encode(content.getvalue()).decode("ascii")


def _text(value: object) -> str:
    return escape(printable(value))
