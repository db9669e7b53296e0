"""Parameters, GFLOPs and batch normalisation of the built-in backbones, from a measured table.

`benchmarks/backbone_figures.py` creates the table. A newer version of a library may have models that are not in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from automl_pt.core.files import read_json

TABLE = Path(__file__).with_name("figures.json")


class Figures(NamedTuple):
    """Figures of a network with its published head of 1000 classes, for one image of its native size."""

    parameters: int
    #: a multiplication with its addition counts as two operations
    gflops: float
    batch_norm: bool
    #: the part of its library that contains it
    family: str = ""


@cache
def table() -> Mapping[str, Figures]:
    """Return all figures by key: NAME@SIZE, without the tag of the weights in the name."""
    return {key: Figures(*values) for key, values in read_json(TABLE)["figures"].items()}


def figures(name: str, image_size: int) -> Figures | None:
    """Return the figures of a backbone, with or without the tag of its weights; None if unknown."""
    return table().get(f"{name.partition('.')[0]}@{image_size}")
