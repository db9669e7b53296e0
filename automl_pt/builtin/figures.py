"""Parameters, GFLOPs and batch normalisation of the built-in backbones, from a table that is measured beforehand.

`benchmarks/backbone_figures.py` makes the table. A library's newer version may have models that it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from automl_pt.core.files import read_json

TABLE = Path(__file__).with_name("figures.json")


class Figures(NamedTuple):
    """Of a network with its published head of 1000 classes, and one image of its native size."""

    parameters: int
    #: a multiplication with its addition counts as two
    gflops: float
    batch_norm: bool
    #: the part of its library that holds it
    family: str = ""


@cache
def table() -> Mapping[str, Figures]:
    """Return all figures by key: NAME@SIZE, the name without the tag of its weights."""
    return {key: Figures(*values) for key, values in read_json(TABLE)["figures"].items()}


def figures(name: str, image_size: int) -> Figures | None:
    """Return what is known of a backbone, with or without the tag of its weights; None where nothing is."""
    return table().get(f"{name.partition('.')[0]}@{image_size}")
