"""The weight of each class in the training loss, as the settings say it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from automl_pt.core.errors import ConfigError
from automl_pt.core.likeness import did_you_mean
from automl_pt.core.text import printable

#: classes that a message lists
LISTED = 20


#: `none`, `balanced`, or pairs of class and weight, see `Settings.class_weights`
Asked = str | Sequence[tuple[str, float]]


def class_weights(asked: Asked, labels: Tensor, classes: Sequence[str] | int) -> Tensor | None:
    """Return float32[classes] for training labels int64[N], on their device; None where all classes weigh alike.

    A class that `asked` does not name weighs 1. `classes` are their names, or their number where none is named.
    Raises ConfigError for a name that is no class.
    """
    if asked == "none":
        return None
    if isinstance(asked, str):
        count = classes if isinstance(classes, int) else len(classes)
        counts = torch.bincount(labels, minlength=count).float()
        return counts.sum() / (len(counts) * counts)
    names = [] if isinstance(classes, int) else list(classes)
    require_classes(asked, names)
    weights = torch.ones(len(names), device=labels.device)
    for name, weight in asked:
        weights[names.index(name)] = weight
    return weights


def require_classes(asked: Asked, classes: Sequence[str]) -> None:
    """Raise ConfigError, with near names, where `asked` names what is no class of the data."""
    if isinstance(asked, str):
        return
    unknown = [name for name, _ in asked if name not in classes]
    if unknown:
        raise ConfigError([f"class_weights: {_no_class(name, classes)}" for name in unknown])


def _no_class(name: str, classes: Sequence[str]) -> str:
    hint = did_you_mean(name, classes, show=lambda near: repr(printable(near)))
    more = ", ..." if len(classes) > LISTED else ""
    known = ", ".join(map(printable, classes[:LISTED])) + more
    return f"no class is called {printable(name)!r}; {hint}{' ' if hint else ''}The classes are {known}"
