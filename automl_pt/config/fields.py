"""Types of settings: how a value is read, checked and written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    Strict,
)

#: marks a setting that says where or by which name something is computed, so that it does not belong into a repetition
HERE = "here"

Count = Annotated[int, Strict(), Field(gt=0)]
#: more members than this make an ensemble that is too slow to use
Folds = Annotated[int, Strict(), Field(ge=2, le=20)]
Several = Annotated[int, Strict(), Field(ge=2, le=100)]
CountOrZero = Annotated[int, Strict(), Field(ge=0)]
Seed = Annotated[int, Strict()]
#: strict, so that neither "0.2" nor true counts as a number
Rate = Annotated[float, Strict(), Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Strict(), Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Strict(), Field(ge=0, lt=1)]
Flag = Annotated[bool, Strict()]
StopRule = Literal["consecutive", "best"]
Schedule = Literal["constant", "step", "polynomial", "cosine"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Augment = Literal["early", "always", "none"]
BatchNorm = Literal["auto", "keep", "train"]
#: None is written auto; a number may come as text, from the command line
Channels = Annotated[
    Annotated[int, Strict(), Field(gt=0, le=256)] | None,
    BeforeValidator(
        lambda given: (
            None
            if given == "auto"
            else int(given)
            if isinstance(given, str) and given.isascii() and given.isdigit()
            else given
        )
    ),
]


def _class_weights(given: Any) -> str | tuple[tuple[str, float], ...]:
    """Read 'none', 'balanced', 'cat=2,dog=1', a table of weights by name, or the pairs that records hold."""
    if given in ("none", "balanced"):
        return str(given)
    rule = "must be none, balanced, or NAME=WEIGHT,... with weights above 0 and each class once"
    if isinstance(given, str):
        given = _written_weights(given)
    try:
        pairs = [(name, weight) for name, weight in (given.items() if isinstance(given, Mapping) else given)]
    except (TypeError, ValueError):
        raise ValueError(rule) from None
    names = [name for name, _ in pairs]
    if not pairs or not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise ValueError(rule)
    if not all(type(weight) in (int, float) and 0 < weight < math.inf for _, weight in pairs):
        raise ValueError(rule)
    return tuple(sorted((name, float(weight)) for name, weight in pairs))


def _written_weights(text: str) -> list[tuple[str, float]]:
    """Read NAME=WEIGHT,... ; a name may hold the sign of equality, and one with a comma is given in a TOML file."""
    parts = [part.rpartition("=") for part in text.split(",")]
    try:
        return [(name.strip(), float(weight)) for name, _, weight in parts]
    except ValueError:
        return []


def _plain_weights(weights: str | tuple[tuple[str, float], ...]) -> Any:
    """Return class weights as JSON holds them, which is how records are compared."""
    return weights if isinstance(weights, str) else [list(pair) for pair in weights]


ClassWeights = Annotated[
    Literal["none", "balanced"] | tuple[tuple[str, float], ...],
    PlainValidator(_class_weights),
    PlainSerializer(_plain_weights),
]
