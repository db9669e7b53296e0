"""How values are written on the page: text from data printable on one line, numbers in few digits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from markupsafe import Markup, escape

from automl_pt.core.text import printable


def shown(value: Any) -> Any:
    """Make text from data printable before it is escaped; our own markup is unchanged."""
    if hasattr(value, "__html__"):
        return value
    # a number and its per cent sign stay on one line
    return printable(value).replace(" %", "\u00a0%") if isinstance(value, str) else value


def loss(value: float | None) -> str:
    """Write a loss with four decimals, a very high one in three digits."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.3g}"


def percent(value: float | None) -> str:
    """Write a share as per cent with one decimal."""
    return "-" if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"


def metric(value: float | None, kind: str) -> str:
    """Write a metric's value, a `share` as per cent and a `number` as losses are written."""
    return percent(value) if kind == "share" else loss(value)


def spread(interval: list[float] | tuple[float, float] | None) -> str:
    """Write an interval of shares as per cent."""
    return "-" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def number(value: Any) -> str:
    """Write a number in three digits, anything else as it is."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def millions(count: int | None) -> str:
    """Write a number of parameters in millions."""
    return "-" if count is None else f"{count / 1e6:.1f} M"


def duration(seconds: float | None) -> str:
    """Write a duration: 0.4 s, 12 s, 3 min 08 s, 2 h 05 min."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def setting(name: str) -> str:
    """Write a setting's name as words."""
    return {"lr": "learning rate"}.get(name, name.replace("_", " "))


def tag(part: str) -> str:
    """Return the style of a part of the time."""
    return next((known for known in ("training", "validation", "saving", "waiting") if part.startswith(known)), "rest")


def code(text: str) -> Markup:
    """Show what stands between backticks as code; all of the text is escaped."""
    parts = str(shown(text)).split("`")
    if len(parts) % 2 == 0:  # one of them has no partner
        return escape("`".join(parts))
    marked = (Markup("<code>{}</code>").format(part) if place % 2 else escape(part) for place, part in enumerate(parts))
    return Markup("").join(marked)


FILTERS: dict[str, Callable[..., Any]] = {
    "loss": loss,
    "metric": metric,
    "percent": percent,
    "spread": spread,
    "number": number,
    "millions": millions,
    "duration": duration,
    "setting": setting,
    "code": code,
    "tag": tag,
}
