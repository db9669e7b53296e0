"""What is searched: learning rate, batch size, the backbone where several are given, further settings and options."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from automl_pt.backbones.options import told
from automl_pt.core.errors import ConfigError
from automl_pt.core.text import printable
from automl_pt.plugins.optimizers import Optimizer
from automl_pt.runs.published import DEFAULT_LR, published_lr, published_values

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from automl_pt.config import SearchConfig
    from automl_pt.plugins.manager import Plugins
    from automl_pt.study.space.dimensions import Dimension

DEFAULT_BATCH_SIZE = 16
OFFERED = tuple(2**power for power in range(3, 9))
#: optimiser steps that a batch size must leave per run: with fewer, the best of ten sets of trials were 0 to 79 %
#: worse, and once 4 % better (docs/evidence/search.md)
STEPS = 100


@dataclass(frozen=True)
class OptimizerSpace:
    """What the trials of one of several optimisers have: learning rates from low to high, and published settings.

    `settings` are those that the user did not give, `default_lr` is the rate that it publishes.
    """

    lr: tuple[float, float]
    default_lr: float
    settings: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {"lr": list(self.lr), "default_lr": self.default_lr, "settings": dict(self.settings)}


@dataclass(frozen=True)
class Space:
    """The ranges of one study: `lr` from low to high, `batch_sizes` rising, `backbones` in the given order.

    `extra` are options of the backbones, of which a trial has those of its own, and settings that every trial has.
    """

    lr: tuple[float, float]
    batch_sizes: tuple[int, ...]
    backbones: tuple[str, ...]
    extra: tuple[Dimension, ...] = ()
    #: whether the study also has backbones that are not searched now, so that each trial names its own
    names_backbone: bool = False
    #: the learning rate of trial 0, where the range holds it
    default_lr: float = DEFAULT_LR
    #: where optimisers are searched, what the trials of each have; `lr` then holds the range of each
    optimizers: Mapping[str, OptimizerSpace] = field(default_factory=dict)

    def only(self, backbones: Sequence[str]) -> Space:
        """Return the ranges with those of the backbones alone, of which trial 0 has the first."""
        own = tuple(dimension for dimension in self.extra if dimension.backbone in (None, *backbones))
        named = self.names_backbone or len(self.backbones) > 1
        return replace(self, backbones=tuple(backbones), extra=own, names_backbone=named)

    def text(self) -> str:
        """Describe the search space in words."""
        sizes = ", ".join(map(str, self.batch_sizes))
        ranges = {own.lr for own in self.optimizers.values()}
        rates = [f"{_range(own.lr)} with {printable(name)}" for name, own in self.optimizers.items()]
        parts = [
            f"learning rate {_range(self.lr) if len(ranges) < 2 else ', '.join(rates)}",
            f"batch size {sizes}" if len(self.batch_sizes) > 1 else f"batch size {sizes} alone",
            *([f"backbone {', '.join(self.backbones)}"] if len(self.backbones) > 1 else []),
            *(dimension.words() for dimension in self.extra),
        ]
        return "; ".join(parts)

    def default(self) -> dict[str, Any]:
        """Return trial 0: the documented defaults, or the nearest values in the ranges."""
        batch_size = min(self.batch_sizes, key=lambda size: abs(math.log(size / DEFAULT_BATCH_SIZE)))
        options = [dimension.default for dimension in self.extra]
        own = self._own_optimizer(self._named(options))
        low, high = self.lr if own is None else own.lr
        lr = self.default_lr if own is None else own.default_lr
        return self._params(min(high, max(low, lr)), batch_size, self.backbones[0], options)

    def at(self, unit: Sequence[float]) -> dict[str, Any]:
        """Map a point of the unit cube, of `axes` coordinates, to parameters, evenly on the scale of each."""
        options = [dimension.at(place) for dimension, place in zip(self.extra, unit[3:], strict=True)]
        lowest, highest = self.lr_range(self._named(options))
        low, high = math.log(lowest), math.log(highest)
        lr = min(highest, max(lowest, math.exp(low + unit[0] * (high - low))))
        batch_size = self.batch_sizes[int(unit[1] * len(self.batch_sizes))]
        backbone = self.backbones[int(unit[2] * len(self.backbones))]
        return self._params(lr, batch_size, backbone, options)

    def nearest(self, params: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the point nearest to a trial's parameters of another study; None if its backbone is not searched."""
        backbone = params.get("backbone", self.backbones[0])
        if backbone not in self.backbones or not {"lr", "batch_size"} <= params.keys():
            return None
        options = [params[d.name] if d.name in params and d.holds(params[d.name]) else d.default for d in self.extra]
        low, high = self.lr_range(self._named(options))
        size = min(self.batch_sizes, key=lambda one: abs(math.log(one / params["batch_size"])))
        return self._params(min(high, max(low, params["lr"])), size, backbone, options)

    def lr_range(self, params: Mapping[str, Any]) -> tuple[float, float]:
        """Return the learning rates of a trial with these parameters: where optimisers are searched, its own."""
        own = self._own_optimizer(params)
        return self.lr if own is None else own.lr

    def _own_optimizer(self, params: Mapping[str, Any]) -> OptimizerSpace | None:
        return self.optimizers.get(params["optimizer"]) if "optimizer" in params else None

    def _named(self, options: Sequence[Any]) -> dict[str, Any]:
        """Map the settings among `extra` to the values given in the same order."""
        return {d.name: value for d, value in zip(self.extra, options, strict=True) if d.backbone is None}

    def without(self, batch_size: int) -> Space:
        """Remove batch sizes from `batch_size` up, which did not fit in memory; the smallest always remains."""
        fitting = tuple(size for size in self.batch_sizes if size < batch_size)
        return replace(self, batch_sizes=fitting or self.batch_sizes[:1])

    @property
    def axes(self) -> int:
        """Return how many coordinates `at` takes."""
        return 3 + len(self.extra)

    def own(self, backbone: str) -> list[Dimension]:
        """Return the dimensions that a trial of one backbone has."""
        return [dimension for dimension in self.extra if dimension.backbone in (None, backbone)]

    def options(self, params: Mapping[str, Any]) -> tuple[str, ...]:
        """Return a trial's options as the setting `backbone_options` holds them."""
        return tuple(told(d.option, params[d.name]) for d in self.extra if d.backbone is not None and d.name in params)

    def settings(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return a trial's settings besides learning rate and batch size: its optimiser's, then the searched ones."""
        own = self._own_optimizer(params)
        published = {} if own is None else dict(own.settings)
        return published | {d.option: params[d.name] for d in self.extra if d.backbone is None and d.name in params}

    def distributions(self, backbone: str | None = None) -> dict[str, BaseDistribution]:
        """Describe the parameters, of one backbone's trial or of all, to Optuna's storage.

        Batch sizes are a range of integers, because Optuna lets a range grow within a study, but not a set of choices.
        """
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        found: dict[str, BaseDistribution] = {
            "lr": FloatDistribution(*self.lr, log=True),
            "batch_size": IntDistribution(self.batch_sizes[0], self.batch_sizes[-1], log=True),
        }
        if self.names_backbone or len(self.backbones) > 1:
            found["backbone"] = CategoricalDistribution(self.backbones)
        asked = self.extra if backbone is None else self.own(backbone)
        return found | {dimension.name: dimension.distribution for dimension in asked}

    def fault(self, params: Any) -> str | None:
        """Say what is wrong with a point that a plugin chose; None where it can be tried."""
        if not isinstance(params, Mapping):
            return f"{params!r}, which is no mapping"
        backbone = params.get("backbone", self.backbones[0])
        if backbone not in self.backbones:
            return f"backbone {backbone!r}, which is not searched"
        wanted = {"lr", "batch_size", *(d.name for d in self.own(backbone))}
        wanted |= {"backbone"} if self.names_backbone or len(self.backbones) > 1 else set()
        if params.keys() != wanted:
            return f"the settings {sorted(params.keys())}, which have to be {sorted(wanted)}"
        low, high = self.lr_range(params)
        if not isinstance(params["lr"], float) or not low <= params["lr"] <= high:
            return f"lr {params['lr']!r}, which is not from {low:g} to {high:g}"
        if params["batch_size"] not in self.batch_sizes:
            return f"batch_size {params['batch_size']!r}, which is not one of {', '.join(map(str, self.batch_sizes))}"
        wrong = [d for d in self.own(backbone) if not d.holds(params[d.name])]
        return f"{wrong[0].name} {params[wrong[0].name]!r}, but searched is {wrong[0].words()}" if wrong else None

    def _params(self, lr: float, batch_size: int, backbone: str, options: Sequence[Any]) -> dict[str, Any]:
        plain: dict[str, Any] = {"lr": lr, "batch_size": batch_size}
        own = {d.name: value for d, value in zip(self.extra, options, strict=True) if d.backbone in (None, backbone)}
        return {**plain, **({"backbone": backbone} if self.names_backbone or len(self.backbones) > 1 else {}), **own}


def _range(lr: tuple[float, float]) -> str:
    return f"{lr[0]:g} to {lr[1]:g}" if lr[0] < lr[1] else f"{lr[0]:g} alone"


def optimizer_spaces(config: SearchConfig, plugins: Plugins) -> dict[str, OptimizerSpace]:
    """Return what the trials of each searched optimiser have; nothing where one optimiser is used."""
    names = config.tried("optimizer")
    if len(names) < 2:
        return {}
    found: dict[str, OptimizerSpace] = {}
    for name in names:
        optimizer = plugins.named(Optimizer, name)
        own = optimizer.fine_tuning_lr if config.fine_tunes else optimizer.search_lr
        lr = config.lr if "lr" in config.model_fields_set else own
        default = published_lr(optimizer, fine_tunes=config.fine_tunes)
        found[name] = OptimizerSpace(lr, default, published_values(config, optimizer, fine_tunes=False))
    return found


def allowed(train_images: int, epochs: int) -> tuple[int, ...]:
    """Return the default batch-size candidates: those that leave a run `STEPS` steps, the smallest always."""
    fitting = tuple(size for size in OFFERED if STEPS * size <= epochs * train_images)
    return fitting or (max(1, min(OFFERED[0], train_images)),)


def make_space(
    config: SearchConfig,
    train_images: int,
    extra: tuple[Dimension, ...] = (),
    offered: Sequence[int] | None = None,
    default_lr: float = DEFAULT_LR,
    optimizers: Mapping[str, OptimizerSpace] | None = None,
) -> Space:
    """Return the study's ranges; batch sizes that the user did not give are those `offered`, or all the data allow.

    `extra` are the options of backbones; the settings that `config` searches follow them. Raises ConfigError when a
    batch size asked for is above the number of training images.
    """
    if config.batch_sizes is None:
        sizes = tuple(offered or allowed(train_images, config.epochs))
    else:
        require_batch_sizes(config.batch_sizes, train_images)
        sizes = tuple(sorted(set(config.batch_sizes)))
    if config.search:
        from automl_pt.study.space.dimensions import setting_dimensions

        first = next(iter((optimizers or {}).values()), None)
        first = (optimizers or {}).get(config.optimizer, first)
        published = {} if first is None else dict(first.settings)
        extra += setting_dimensions(config.entries, config.model_copy(update=published))
    backbones = tuple(dict.fromkeys(config.backbones))
    return Space(config.lr, sizes, backbones, extra, default_lr=default_lr, optimizers=optimizers or {})


def require_batch_sizes(asked: Sequence[int] | None, train_images: int) -> None:
    """Raise ConfigError if a requested batch size is above the number of training images."""
    largest = max(asked or (0,))
    if largest > train_images:
        raise ConfigError([f"batch_sizes: at most the number of training images, {train_images}, got {largest}"])
