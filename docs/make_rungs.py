"""Draw docs/explanation/rungs.svg: how 16 trials shrink to 6 and then to 2 under the default rule.

python docs/make_rungs.py          writes the file
python docs/make_rungs.py --check  exits 1 when the file is not what this script draws
"""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

from automl_pt.study.pruning.rungs import Rungs

TARGET = Path(__file__).parent / "explanation" / "rungs.svg"
TRIALS, EPOCHS, IMAGES = 16, 5, 1600
LEFT, TOP, ROW, COLUMN = 70, 74, 15, 190
#: which trials stay, in the picture: any order shows the same
ORDER = (6, 11, 3, 9, 14, 1, 0, 2, 4, 5, 7, 8, 10, 12, 13, 15)
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #333 }
  .small { font-size: 11px }
  .rung { stroke: #999; stroke-dasharray: 3 3 }
  .trial { stroke: #9aa4b2; stroke-width: 3; stroke-linecap: round }
  .kept { stroke: #3f51b5 }
  .end { fill: #9aa4b2 } .best { fill: #3f51b5 }
  @media (prefers-color-scheme: dark) {
    text { fill: #ddd } .rung { stroke: #777 } .trial { stroke: #6b7686 } .kept { stroke: #9fa8da }
    .end { fill: #6b7686 } .best { fill: #9fa8da }
  }
"""


def draw() -> str:
    """Return the picture as SVG."""
    stages = rungs()
    width, height = LEFT + COLUMN * len(stages) + 60, TOP + ROW * TRIALS + 46
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<title>Of {TRIALS} trials {', '.join(str(count) for _, count in stages[1:])} stay</title>",
        f"<style>{STYLE}</style>",
        text(LEFT, 22, f"{TRIALS} trials, {EPOCHS} epochs, {IMAGES:,} training images or more"),
    ]
    for number, (label, count) in enumerate(stages, 1):
        x = LEFT + COLUMN * number
        lines.append(f'<line class="rung" x1="{x}" x2="{x}" y1="{TOP - 12}" y2="{TOP + ROW * TRIALS}"/>')
        lines.append(text(x, TOP - 20, label, "middle"))
        lines.append(text(x - COLUMN // 2, TOP + ROW * TRIALS + 20, f"{count} trials", "middle"))
    lines += [trial(place, stages) for place in range(TRIALS)]
    lines.append(text(LEFT, TOP + ROW * TRIALS + 40, "A line ends where the trial is pruned.", "start", "small"))
    return "\n".join([*lines, "</svg>"]) + "\n"


def rungs() -> list[tuple[str, int]]:
    """Return the default rule's rungs: a label, and how many trials run up to it."""
    rule = Rungs.over(EPOCHS, IMAGES)
    labels = [
        f"proxy run, {Fraction(level)} epoch" if level < 1 else f"epoch {level:.0f}" for level in rule.rung_resources
    ]
    return [(label, rule.cohort_size(rung, TRIALS)) for rung, label in enumerate(labels)]


def trial(place: int, stages: list[tuple[str, int]]) -> str:
    """Draw one trial, up to the rung where it is pruned."""
    rank = ORDER.index(place)
    last = sum(rank < count for _, count in stages)
    y, x = TOP + ROW * place + ROW // 2, LEFT + COLUMN * last
    kind = " kept" if last == len(stages) else ""
    dot = "best" if kind else "end"
    return (
        f'<line class="trial{kind}" x1="{LEFT}" x2="{x}" y1="{y}" y2="{y}"/>'
        f'<circle class="{dot}" cx="{x}" cy="{y}" r="5"/>'
    )


def text(x: int, y: int, words: str, anchor: str = "start", kind: str = "") -> str:
    """Return one line of text."""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" class="{kind}">{words}</text>'


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(0 if TARGET.read_text() == draw() else 1)
    TARGET.write_text(draw())
