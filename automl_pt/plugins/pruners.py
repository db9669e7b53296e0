"""What a pruner is: a named function that makes the rule by which trials are compared, paused and ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Pruner:
    """A named pruner.

    `make(epochs, images)` returns the rule for runs of so many epochs on so many training images. The rule is a value
    with the methods of `automl_pt.PruningRule`, which it may inherit from, or one of Optuna's pruners.
    `make_from_weights` is used instead, where it is given, if trials start from weights.
    """

    name: str
    make: Callable[[int, int], Any]
    #: one line for listings
    description: str = ""
    make_from_weights: Callable[[int, int], Any] | None = None
