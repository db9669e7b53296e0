"""The page: HTML made from a report's plain values, without downloads or scripts, and with every text escaped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from automl_pt.reporting.html import plots
from automl_pt.reporting.html.formats import FILTERS, shown
from automl_pt.reporting.html.marked import MARK

HERE = Path(__file__).parent
#: with so many classes a confusion matrix still fits a table that shows every number
MAX_TABLE = 16
#: rows of a table, and pictures of a gallery, that are visible at first; the others are collapsed, or only in --json
MAX_ROWS = 20
MAX_PICTURES = 18


def render(content: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    """Return the page of a report's `content`; `pictures` maps the names used there to data URIs.

    A section is drawn from its values, or replaced by the sentence in its `missing`.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    limits = {"max_table": MAX_TABLE, "max_rows": MAX_ROWS, "max_pictures": MAX_PICTURES}
    page = environment.get_template("report.html.j2")
    return page.render(content, pictures=pictures, plots=_plots(content), mark=MARK, **limits)


def _plots(content: Mapping[str, Any]) -> dict[str, Any]:
    """Draw the plots that have data; their text is matplotlib's, without names from the data."""
    from markupsafe import Markup

    drawn: dict[str, str] = {}
    sections = {name: part for name, part in content.items() if isinstance(part, Mapping) and "missing" not in part}
    if "losses" in sections:
        drawn["losses"] = plots.losses(sections["losses"])
    if "curves" in sections:
        drawn["curves"] = (plots.curves if content["kind"] == "study" else plots.run_curves)(sections["curves"])
    if "space" in sections:
        drawn["space"] = plots.space(sections["space"])
    if "forecast" in sections:
        drawn["forecast"] = plots.forecast(sections["forecast"])
    if "calibration" in sections:
        drawn["reliability"] = plots.reliability(sections["calibration"])
    if "confusion" in sections and len(sections["confusion"]["classes"]) > MAX_TABLE:
        counts = sections["confusion"]["counts"]
        drawn["counts"] = plots.matrix(counts, normalised=False)
        drawn["shares"] = plots.matrix(counts, normalised=True)
    return {name: Markup(svg) for name, svg in drawn.items()}  # noqa: S704  # our own plots: texts in them were escaped when drawn
