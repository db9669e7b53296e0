"""What a pruner is: a named function that makes the rule by which trials are compared, paused and ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Pruner:
    """A named pruner.

    `make(epochs, images)` returns the rule for runs of so many epochs on so many training images, or on at least
    1,000 where trials start from weights. The rule is a value with the methods of `automl_pt.PruningRule`, which it may
    inherit from, or one of Optuna's pruners.
    """

    name: str
    make: Callable[[int, int], Any]
    #: one line for listings
    description: str = ""
