"""Parts of a page for a notebook: a table, facts and curves. They take the notebook's own colours, light or dark."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from automl_pt.core.text import cut, printable
from automl_pt.reporting.html import plots

#: characters of a cell; a class, file or setting may have a name of any length
LONGEST = 60
#: rows of a table; the others are counted below it
MOST_ROWS = 30
#: a plot's colours are those of the page it stands in
_STYLE = """<style>
.automl-pt { --ink: currentColor; --accent: #3b7ddd; --bad: #d0482f; overflow-x: auto;
  --faint: color-mix(in srgb, currentColor 60%, transparent);
  --line: color-mix(in srgb, currentColor 18%, transparent) }
.automl-pt table { border-collapse: collapse; margin: .5em 0; font-variant-numeric: tabular-nums }
.automl-pt th, .automl-pt td { padding: .15em .7em; text-align: right; white-space: nowrap }
.automl-pt .text { text-align: left } .automl-pt .best { font-weight: bold }
.automl-pt thead th { border-bottom: 1px solid var(--line) }
.automl-pt svg { width: 30em; max-width: 100% } .automl-pt .note { opacity: .75 }
.automl-pt .bar { height: .4em; width: 30em; max-width: 100%; background: var(--line) }
.automl-pt .bar div { height: 100%; background: var(--accent) }
</style>"""


def fragment(*parts: str) -> str:
    """Return the parts as one element with its style."""
    return str(Markup('<div class="automl-pt">{}{}</div>').format(Markup(_STYLE), Markup("").join(parts)))


def shown(value: object) -> str:
    """Return a text on one line, cut where it is long; escaping is left to the markup."""
    return cut(printable(value), LONGEST)


def heading(text: str) -> Markup:
    """Return a heading."""
    return Markup("<p><b>{}</b></p>").format(shown(text))


def line(text: str) -> Markup:
    """Return a line of its own; it is not cut."""
    return Markup('<div class="note">{}</div>').format(printable(text))


def table(
    headings: Sequence[str], rows: Sequence[Sequence[object]], *, texts: Iterable[int] = (), best: int | None = None
) -> Markup:
    """Return a table; the columns `texts` are aligned to the left, and the row `best` is bold."""
    left = set(texts)

    def cells(kind: str, values: Sequence[object]) -> Markup:
        pattern = Markup("<{0}{1}>{2}</{0}>")
        classes = [Markup(' class="text"') if place in left else Markup("") for place in range(len(values))]
        return Markup("").join(
            pattern.format(Markup(kind), one, shown(value)) for one, value in zip(classes, values, strict=True)
        )

    body = Markup("").join(
        Markup("<tr{}>{}</tr>").format(Markup(' class="best"') if place == best else Markup(""), cells("td", row))
        for place, row in enumerate(rows[:MOST_ROWS])
    )
    more = line(f"and {len(rows) - MOST_ROWS} more") if len(rows) > MOST_ROWS else Markup("")
    head = cells("th", headings)
    return Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>{}").format(head, body, more)


def facts(pairs: Mapping[str, object]) -> Markup:
    """Return names with their values, one a row; a value is not cut, so that a path can be copied."""
    row = Markup('<tr><th class="text">{}</th><td class="text">{}</td></tr>')
    rows = (row.format(shown(name), printable(value)) for name, value in pairs.items())
    return Markup("<table><tbody>{}</tbody></table>").format(Markup("").join(rows))


def bar(share: float, text: str) -> Markup:
    """Return a bar of which a share is filled, with a text below it."""
    width = f"{100 * min(1.0, max(0.0, share)):.1f}"
    return Markup('<div class="bar"><div style="width: {}%"></div></div>{}').format(width, line(text))


def loss_curves(curves: Sequence[Mapping[str, Any]]) -> str:
    """Draw the validation losses of trials: `points` (epoch, loss), and whether it is the `best` or `complete`."""
    drawn = [{**one, "points": [_finite(epoch, loss) for epoch, loss in one["points"]]} for one in curves]
    if not any(loss is not None for one in drawn for _, loss in one["points"]):
        return ""
    return Markup(plots.curves({"curves": drawn}, _id()))  # noqa: S704  # matplotlib's own, of numbers alone


def run_curve(epochs: Sequence[Mapping[str, Any]], best: Mapping[str, Any] | None) -> str:
    """Draw a run's losses: of each epoch its `epoch`, `train_loss` and `val_loss`."""
    drawn = [{**one, **{name: _finite(0, one[name])[1] for name in ("train_loss", "val_loss")}} for one in epochs]
    if not any(one[name] is not None for one in drawn for name in ("train_loss", "val_loss")):
        return ""
    return Markup(plots.run_curves({"epochs": drawn, "best": best}, _id()))  # noqa: S704  # as above


def _finite(epoch: float, loss: float | None) -> tuple[float, float | None]:
    return epoch, loss if loss is not None and math.isfinite(loss) else None


def _id() -> str:
    """Return a name for a plot's ids: two plots of one notebook may not share them."""
    return f"p{secrets.token_hex(4)}"
