"""What is searched besides learning rate, batch size and backbone: settings of a run, and options of a backbone.

A setting comes from an entry of `search`; an option from the backbone's `search_space`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from automl_pt.backbone import Backbone
from automl_pt.backbones.options import defaults, parse
from automl_pt.core.errors import PluginError
from automl_pt.core.search_entries import SearchEntry
from automl_pt.plugins.isolation import TIME_LIMIT, time_limit

RESERVED = ("lr", "batch_size", "backbone")


@dataclass(frozen=True)
class Dimension:
    """One setting of all trials, with `backbone` None, or one option of one backbone.

    `name` is the parameter's in the study, `option` the setting's or the option's, `default` what trial 0 has.
    """

    name: str
    backbone: str | None
    option: str
    distribution: BaseDistribution
    default: Any

    def words(self) -> str:
        """Say for a person what is searched."""
        spread = self.distribution
        if isinstance(spread, CategoricalDistribution):
            return f"{self.name} {', '.join(map(_shown, spread.choices))}"
        assert isinstance(spread, FloatDistribution | IntDistribution)
        return f"{self.name} {spread.low:g} to {spread.high:g} ({'log' if spread.log else 'linear'} scale)"

    def holds(self, value: Any) -> bool:
        """Say whether a value is one that can be tried."""
        return contains(self.distribution, value)

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


def setting_dimensions(entries: Iterable[SearchEntry], settings: object) -> tuple[Dimension, ...]:
    """Return the searched settings; trial 0 has the value in `settings`, or the nearest that is searched."""
    return tuple(_of_setting(entry, getattr(settings, entry.name)) for entry in entries)


def _of_setting(entry: SearchEntry, value: Any) -> Dimension:
    if entry.choices:
        default = value if value in entry.choices else _nearest(entry.choices, value)
        return Dimension(entry.name, None, entry.name, CategoricalDistribution(entry.choices), default)
    kind = IntDistribution if entry.is_whole else FloatDistribution
    spread = kind(entry.low, entry.high, log=entry.is_log)  # type: ignore[arg-type]  # whole where the kind wants it
    default = entry.low if value is None else min(entry.high, max(entry.low, value))
    return Dimension(entry.name, None, entry.name, spread, default)


def _nearest(choices: Sequence[Any], value: Any) -> Any:
    """Return the choice nearest to a number, and the first where that means nothing."""
    if isinstance(value, bool) or not all(isinstance(one, int | float) for one in (*choices, value)):
        return choices[0]
    return min(choices, key=lambda one: abs(one - value))


def dimensions(backbones: Iterable[Backbone], fixed: Sequence[str], taken: Iterable[str] = ()) -> tuple[Dimension, ...]:
    """Return what the backbones add, but for the options in `fixed` (NAME=VALUE).

    A parameter is called as its option where one backbone is searched and no setting in `taken` has the name, else
    BACKBONE.OPTION. Raises PluginError for a `search_space` that fails, or asks for what `build` does not take.
    """
    nets = list(backbones)
    given, settings = {parse(option)[0] for option in fixed}, set(taken)
    return tuple(
        Dimension(_name(net, option, len(nets), settings), net.name, option, distribution, default)
        for net in nets
        for option, (distribution, default) in _asked(net).items()
        if option not in given
    )


def _name(net: Backbone, option: str, nets: int, settings: set[str]) -> str:
    return option if nets == 1 and option not in settings else f"{net.name}.{option}"


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
        if not contains(distribution, known[name]):
            raise _wrong(backbone, f"{name!r}, whose default {known[name]!r} is not in {distribution}")
    return {name: (distribution, known[name]) for name, distribution in recorder.asked.items()}


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Say whether a value lies in a range, on its steps, or is one of the choices."""
    if isinstance(distribution, CategoricalDistribution):
        return any(type(choice) is type(value) and choice == value for choice in distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    kinds = (int,) if isinstance(distribution, IntDistribution) else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not distribution.low <= value <= distribution.high:
        return False
    steps = 0.0 if distribution.step is None else (value - distribution.low) / distribution.step
    return abs(steps - round(steps)) < 1e-8


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)


def _wrong(backbone: Backbone, given: str) -> PluginError:
    return PluginError(
        "a backbone's search_space(trial) asks for something other than options of its build and their ranges",
        given=f"{backbone.name}: {given}",
        remedy="give build(num_classes, pretrained, ...) an argument of that name with a default in the range",
    )
