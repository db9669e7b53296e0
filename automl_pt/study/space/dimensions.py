"""The options that backbones add to the search by their `search_space`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from automl_pt.backbone import Backbone
from automl_pt.backbones.options import defaults, parse
from automl_pt.core.errors import PluginError
from automl_pt.plugins.isolation import TIME_LIMIT, time_limit

RESERVED = ("lr", "batch_size", "backbone")


@dataclass(frozen=True)
class Dimension:
    """One option of one backbone; `name` is its parameter in the study, `default` its value in trial 0."""

    name: str
    backbone: str
    option: str
    distribution: BaseDistribution
    default: Any

    def at(self, unit: float) -> Any:
        """Map a number in [0, 1) to a value, on a linear or logarithmic scale."""
        spread = self.distribution
        if isinstance(spread, CategoricalDistribution):
            return spread.choices[int(unit * len(spread.choices))]
        assert isinstance(spread, FloatDistribution | IntDistribution)
        if spread.log:
            value = math.exp(math.log(spread.low) + unit * (math.log(spread.high) - math.log(spread.low)))
            value = round(value) if isinstance(spread, IntDistribution) else value
            return min(spread.high, max(spread.low, value))
        if spread.step is None:
            return spread.low + unit * (spread.high - spread.low)
        return spread.low + spread.step * int(unit * (round((spread.high - spread.low) / spread.step) + 1))


class Recorder:
    """A trial that records each request, and answers with the default."""

    def __init__(self, known: dict[str, Any]) -> None:
        self.known, self.asked = known, dict[str, BaseDistribution]()

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Record a range of numbers."""
        return float(self._note(name, FloatDistribution(low, high, log=log, step=step), low))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Record a range of whole numbers."""
        return int(self._note(name, IntDistribution(low, high, log=log, step=step), low))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Record a choice."""
        return self._note(name, CategoricalDistribution(choices), choices[0])

    def _note(self, name: str, distribution: BaseDistribution, otherwise: Any) -> Any:
        self.asked[name] = distribution
        return self.known.get(name, otherwise)


def dimensions(backbones: Iterable[Backbone], fixed: Sequence[str]) -> tuple[Dimension, ...]:
    """Return the dimensions that the backbones add, except the options in `fixed` (NAME=VALUE).

    With one backbone a parameter is named like its option, else BACKBONE.OPTION. Raises PluginError for a
    `search_space` that fails, or that asks for an argument that `build` does not have.
    """
    nets = list(backbones)
    given = {parse(option)[0] for option in fixed}
    return tuple(
        Dimension(option if len(nets) == 1 else f"{net.name}.{option}", net.name, option, distribution, default)
        for net in nets
        for option, (distribution, default) in _asked(net).items()
        if option not in given
    )


def _asked(backbone: Backbone) -> dict[str, tuple[BaseDistribution, Any]]:
    if backbone.search_space is None:
        return {}
    known = defaults(backbone)
    recorder = Recorder(known)
    try:
        with time_limit(TIME_LIMIT):
            backbone.search_space(recorder)
    except (Exception, SystemExit) as error:
        raise _wrong(backbone, f"{type(error).__name__}: {error}") from error
    for name, distribution in recorder.asked.items():
        if name not in known or name in RESERVED:
            raise _wrong(backbone, f"{name!r}; build's options are {', '.join(sorted(known)) or 'none'}")
        if not _contains(distribution, known[name]):
            raise _wrong(backbone, f"{name!r}, whose default {known[name]!r} is not in {distribution}")
    return {name: (distribution, known[name]) for name, distribution in recorder.asked.items()}


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (TypeError, ValueError):
        return False


def _wrong(backbone: Backbone, given: str) -> PluginError:
    return PluginError(
        "a backbone's search_space(trial) asks for something other than options of its build and their ranges",
        given=f"{backbone.name}: {given}",
        remedy="give build(num_classes, pretrained, ...) an argument of that name with a default in the range",
    )
