"""A backbone's own options, given as NAME=VALUE: arguments of its `build` besides the two standard ones."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from automl_pt.backbone import Backbone
from automl_pt.core.errors import ConfigError
from automl_pt.core.json_reader import parse_json
from automl_pt.core.likeness import did_you_mean
from automl_pt.core.text import printable

SIZE = "image_size"
CHANNELS = "in_channels"


def parse(text: str) -> tuple[str, Any]:
    """Return an option's name and value: a JSON number, true, false or null, else the text itself."""
    name, _, value = text.partition("=")
    try:
        return name, parse_json(value, not_finite=True)
    except ValueError:
        return name, value


def told(name: str, value: Any) -> str:
    """Return the text of an option from which `parse` returns exactly the same value."""
    text = json.dumps(value)
    return f"{name}={value if isinstance(value, str) and parse(f'{name}={value}')[1] == value else text}"


def defaults(backbone: Backbone) -> dict[str, Any]:
    """Return the options of `build` with their defaults."""
    try:
        parameters = list(inspect.signature(backbone.build).parameters.values())[2:]
    except (TypeError, ValueError):  # a builder in C, or one with hidden arguments
        return {}
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    empty = inspect.Parameter.empty
    return {
        p.name: p.default
        for p in parameters
        if p.kind in kinds and p.default is not empty and p.name not in (SIZE, CHANNELS)
    }


def takes_image_size(backbone: Backbone) -> bool:
    """Return whether `build` has an argument `image_size`, which then receives the side of the images."""
    return takes(backbone.build, SIZE)


def takes(function: Callable[..., Any], name: str) -> bool:
    """Return whether a function has an argument of this name."""
    try:
        return name in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def with_options(backbone: Backbone, options: Sequence[str]) -> Backbone:
    """Return the backbone with `options` (NAME=VALUE) passed to its `build`; raise ConfigError for an unknown one."""
    if not options:
        return backbone
    values, known = dict(map(parse, options)), defaults(backbone)
    mistakes = [_unknown(backbone, name, known) for name in values if name not in known]
    if mistakes:
        raise ConfigError(mistakes)
    # the recipe that builds it without this package does not know the options
    return replace(backbone, build=partial(backbone.build, **values), recipe=None)


def _unknown(backbone: Backbone, name: str, known: Mapping[str, Any]) -> str:
    hint = did_you_mean(name, known) or f"it has {', '.join(sorted(known)) or 'none'}"
    return f"backbone_options: {backbone.name} has no option {printable(name)!r}; {hint}"
