"""The style of plots: SVG by matplotlib in the colours of the page, which dark mode and print change, too."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: colours that stand for the page's own until the SVG is written: matplotlib knows no CSS variables
INK, FAINT, LINE, ACCENT, BAD = "#010203", "#010204", "#010205", "#010206", "#010207"
_VARIABLES = {INK: "--ink", FAINT: "--faint", LINE: "--line", ACCENT: "--accent", BAD: "--bad"}
#: text stays text, and a dollar sign is a dollar sign; the ids in the file depend on the drawing alone
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "automl-pt",
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
}


@contextmanager
def plot(width: float = 4.6, height: float = 3.0) -> Iterator[tuple[Figure, Axes]]:
    """Return a figure of this size in inches and its axes, in the page's style, without changing matplotlib's state."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]  # matplotlib lists its settings one by one
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def to_svg(figure: Figure, name: str) -> str:
    """Return the figure as an `<svg>` element to stand inside a page; `name` makes its ids unique."""
    content = io.StringIO()
    figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = content.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    # the page says how wide it is; the shape comes from the viewBox
    text = re.sub(r'(<svg [^>]*?) (?:width|height)="[^"]*"', r"\1", text)
    text = re.sub(r'(<svg [^>]*?) (?:width|height)="[^"]*"', r"\1", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text
