"""Tables that fit the terminal: no cell is broken over lines, and columns that do not fit are named below the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.markup import escape
from rich.table import Table

from automl_pt.core.text import printable
from automl_pt.metric import Metric
from automl_pt.metric import columns as in_tables
from automl_pt.study.records import in_order

#: characters between two columns
GAP = 2
#: a shortened text keeps at least so many characters
SHORTEST = 12
#: metrics other than the accuracy are removed from a table before any setting is
FURTHER = 100


@dataclass(frozen=True)
class Column:
    """A heading with a cell for each row, as plain text.

    `text` columns are aligned to the left and are shortened in a table that is too wide. Columns are
    removed from it in the order of `optional`, the highest first; 0 always stays.
    """

    heading: str
    cells: Sequence[str]
    text: bool = False
    optional: int = 0
    #: its name in the note on removed columns; default: the heading
    name: str = ""

    @property
    def width(self) -> int:
        """Return the width of its widest cell."""
        return max(cell_len(self.heading), *(cell_len(cell) for cell in self.cells), 0)


def fitted(columns: Sequence[Column], width: int, *, styles: Sequence[str] = ()) -> tuple[Table, list[str]]:
    """Return a table at most `width` wide, and the headings of the columns that did not fit.

    `styles` are those of the rows. All text is shown as it is, on one line.
    """
    kept = [_safe(column) for column in columns]
    dropped = list[str]()
    while _least(kept) > width and any(column.optional for column in kept):
        last = max(range(len(kept)), key=lambda place: (kept[place].optional, place))
        gone = kept.pop(last)
        dropped.insert(0, gone.name or gone.heading)
    limits = _limits(kept, width)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, GAP - 1, 0, 0), show_edge=False)
    for column in kept:
        table.add_column(escape(column.heading), justify="left" if column.text else "right", no_wrap=True)
    for row in range(len(kept[0].cells)):
        cells = [_shortened(column.cells[row], limits.get(place)) for place, column in enumerate(kept)]
        table.add_row(*(escape(cell) for cell in cells), style=styles[row] if styles else None)
    return table, dropped


def varying(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """Name the parameters that differ between rows, learning rate and batch size first.

    A row without a parameter differs from a row with it.
    """
    names = in_order({name for row in rows for name in row})
    return [name for name in names if len({str(row.get(name)) for row in rows}) > 1]


def heading(name: str) -> str:
    """Return the heading of a parameter's column."""
    return {"lr": "learning rate", "batch_size": "batch"}.get(name, name.replace("_", " "))


def parameter(value: object) -> str:
    """Write a parameter's value, numbers in three digits; one that a trial does not have is a dash."""
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def percent(share: float | None) -> str:
    """Write a share as per cent with one decimal."""
    return "-" if share is None else f"{100 * share:.1f} %"


def loss(value: float | None) -> str:
    """Write a loss with four decimals; an exploded one in few digits, so that it fits its column."""
    if value is None:
        return "-"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.3g}"


def metric_columns(
    rows: Sequence[Mapping[str, float]], known: Mapping[str, Metric], objective: str = "val_loss"
) -> list[Column]:
    """Return a column for the accuracy and each further metric of rows; those besides the objective may be dropped."""
    shown = in_tables({"accuracy"}.union(*rows) - {"loss"}, known)
    return [
        Column(
            metric.label,
            [metric.text(row.get(metric.name)) for row in rows],
            optional=0 if metric.name in ("accuracy", objective) else FURTHER + place,
        )
        for place, metric in enumerate(shown)
    ]


def _safe(column: Column) -> Column:
    cells = tuple(printable(cell) for cell in column.cells)
    return replace(column, heading=printable(column.heading), cells=cells)


def _least(columns: Sequence[Column]) -> int:
    needed = [min(column.width, _floor(column)) if column.text else column.width for column in columns]
    return sum(needed) + GAP * len(columns)


def _floor(column: Column) -> int:
    return max(SHORTEST, cell_len(column.heading))


def _limits(columns: Sequence[Column], width: int) -> dict[int, int]:
    """Return the widths of the text columns, by place: the widest is shortened until all fits."""
    limits = {place: column.width for place, column in enumerate(columns) if column.text}
    excess = sum(column.width for column in columns) + GAP * len(columns) - width
    while excess > 0:
        widest = max(limits, key=lambda place: limits[place], default=None)
        if widest is None or limits[widest] <= SHORTEST:
            break
        limits[widest] -= 1
        excess -= 1
    return limits


def _shortened(cell: str, limit: int | None) -> str:
    """Cut the middle of a text that is too long: names often differ at their ends."""
    if limit is None or cell_len(cell) <= limit:
        return cell
    tail = (limit - 1) // 2
    end = cell[-tail:] if tail and cell_len(cell[-tail:]) <= tail else ""
    return f"{set_cell_size(cell, limit - 1 - tail).rstrip()}…{end}"
