"""Class and file names that try to be something else: markup, formulas, lines, turned and rare characters."""

from __future__ import annotations

from pathlib import Path

from conftest import draw_image
from tiny_runs import write_plugin

from automl_pt.api.search import steps
from automl_pt.config import SearchConfig

CLASSES = (
    '"><img src=x onerror=alert(1)>',
    "=1+cmd|' !A0 & $x^2$ {{7*7}}",
    "line\nbreak \x1b[31m",
    "\u202egnp.exe \u05d0\u05d1\u05d2",
    "\U0001f600 \U0001d4b3 </style><script>alert(2)<",
)
FILE = "<svg onload=alert(3)> $\\frac{ {%x%} \u202e"


def write_hostile(root: Path, images: int = 6) -> Path:
    """Write five classes of drawn images with such names under `root/train` and `root/val`."""
    for split in ("train", "val"):
        for label, name in enumerate(CLASSES):
            folder = root / split / name.replace("/", "\u2215")
            folder.mkdir(parents=True)
            for index in range(images):
                # every label is a colour, but the last two share one, so that mistakes are made
                draw_image(min(label, 2), index + 100 * label + 1000 * len(split)).save(folder / f"{FILE} {index}.png")
    return root


def search_hostile(folder: Path) -> Path:
    """Search over such images with a tiny network, in `folder`; return it."""
    images, plugin = write_hostile(folder / "images"), write_plugin(folder)
    config = SearchConfig(
        dataset=str(images),
        backbones=("tiny",),
        plugins=(str(plugin),),
        lr=(1e-3, 0.1),
        batch_sizes=(5, 10),
        trials=9,
        epochs=2,
        workers=0,
        threads=1,
    )
    list(steps(config, folder / "studies" / "hostile"))
    return folder
