"""Draw docs/pictures/floor-plan.svg: the package's parts in their layers, and which part imports which.

python docs/make_floor_plan.py          writes the file
python docs/make_floor_plan.py --check  exits 1 when the file is not what the code says

The rows are the layers that import-linter checks (pyproject.toml, the first contract). A row imports only from
rows below it. An arrow that follows from two others is not drawn: where A imports B and B imports C, A may import C.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "automl_pt"
TARGET = ROOT / "docs" / "pictures" / "floor-plan.svg"
WIDTH, ROW, BOX, MARGIN = 1000, 58, 28, 16
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #222; text-anchor: middle; dominant-baseline: central }
  rect { fill: #eef1f8; stroke: #7986cb } path { fill: none; stroke: #7986cb; opacity: .7 }
  @media (prefers-color-scheme: dark) { text { fill: #eee } rect { fill: #2b3044 } }
"""
Imports = Mapping[str, set[str]]


def layers() -> list[list[str]]:
    """Return the rows of the picture, the highest first, as names without the package's own."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    rows = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    named = [[name.strip(" ()").partition(".")[2] for name in row.split("|")] for row in rows]
    found = [[part for part in row if exists(part)] for row in named]
    return [row for row in found if row]


def exists(part: str) -> bool:
    """Say whether a part is there: import-linter takes a layer in parentheses that is not."""
    place = PACKAGE.joinpath(*part.split("."))
    return place.is_dir() or place.with_suffix(".py").exists()


def imports(parts: list[str]) -> Imports:
    """Map each part to the others that its modules import, also within functions."""
    found: dict[str, set[str]] = {part: set() for part in parts}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        if (own := part_of(module, parts)) is not None:
            found[own] |= {part for name in names(path) if (part := part_of(name, parts)) not in (None, own)}
    return found


def names(path: Path) -> Iterator[str]:
    """Name the modules that a file imports, without the package's own name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}".partition("automl_pt.")[2] for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name.partition("automl_pt.")[2] for alias in node.names)


def part_of(module: str, parts: list[str]) -> str | None:
    """Return the part that a module belongs to: the longest that its name begins with."""
    fitting = [part for part in parts if module == part or module.startswith(part + ".")]
    return max(fitting, key=len, default=None)


def reduced(found: Imports) -> Imports:
    """Leave out what follows from two other arrows."""
    reach: dict[str, set[str]] = {}

    def reached(part: str) -> set[str]:
        if part not in reach:
            reach[part] = set()
            reach[part] = set().union(*({below} | reached(below) for below in found[part]), set())
        return reach[part]

    return {part: below - set().union(*(reached(other) for other in below), set()) for part, below in found.items()}


def draw() -> str:
    """Return the picture as SVG."""
    rows = layers()
    parts = [part for row in rows for part in row]
    lines_of_boxes = [line for row in rows for line in wrapped(row)]
    places = {part: place for level, row in enumerate(lines_of_boxes) for part, place in boxes(row, level)}
    height = MARGIN * 2 + ROW * (len(lines_of_boxes) - 1) + BOX
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        "<title>The parts of automl_pt in their layers; a line leads down to a part that is imported</title>",
        f"<style>{STYLE}</style>",
    ]
    level_of = {part: level for level, row in enumerate(rows) for part in row}
    down = {
        part: {other for other in others if level_of[other] > level_of[part]} for part, others in imports(parts).items()
    }
    for part, below in reduced(down).items():
        lines += [arrow(places[part], places[other]) for other in sorted(below)]
    for part, (x, y, width) in places.items():
        lines.append(f'<rect x="{x - width // 2}" y="{y}" width="{width}" height="{BOX}" rx="5"/>')
        lines.append(f'<text x="{x}" y="{y + BOX // 2}">{part}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def width_of(part: str) -> int:
    """Return the width of a part's box."""
    return 7 * len(part) + 20


def wrapped(row: list[str]) -> Iterator[list[str]]:
    """Split a row that is wider than the picture."""
    line: list[str] = []
    for part in row:
        if line and sum(map(width_of, [*line, part])) + 12 * (len(line) + 2) > WIDTH:
            yield line
            line = []
        line.append(part)
    yield line


def boxes(row: list[str], level: int) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """Place a row's boxes: middle, top and width of each, spread over the picture."""
    widths = [width_of(part) for part in row]
    gap = (WIDTH - sum(widths)) / (len(row) + 1)
    # a box alone in its row stands left, middle or right in turn, so that long arrows seldom run through it
    left = gap if len(row) > 1 else gap * (0.6, 1.0, 1.4)[level % 3]
    for part, width in zip(row, widths, strict=True):
        yield part, (round(left + width / 2), MARGIN + ROW * level, width)
        left += width + gap


def arrow(upper: tuple[int, int, int], lower: tuple[int, int, int]) -> str:
    """Draw a curve from the bottom of one box to the top of another."""
    (x, y), (to_x, to_y) = (upper[0], upper[1] + BOX), (lower[0], lower[1])
    bend = max(18, (to_y - y) // 2)
    return f'<path d="M{x} {y} C{x} {y + bend} {to_x} {to_y - bend} {to_x} {to_y}"/>'


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(0 if TARGET.exists() and TARGET.read_text() == draw() else 1)
    TARGET.write_text(draw())
