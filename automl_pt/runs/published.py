"""What an optimiser publishes for settings that the user does not give; settled before anything else is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from automl_pt.config import SearchConfig, Settings
from automl_pt.core.errors import ConfigError
from automl_pt.core.text import printable
from automl_pt.optimizer import Optimizer
from automl_pt.plugins.registry import KIND_OF

if TYPE_CHECKING:
    from automl_pt.plugins.manager import Plugins

T = TypeVar("T", bound=Settings)

#: the learning rate of trial 0 where the optimiser publishes none: the documented one
DEFAULT_LR = 0.001


def require_names(config: Settings, plugins: Plugins) -> None:
    """Raise UnknownNameError, with near names, where settings name or search what no plugin registers."""
    for kind, name in config.registered_names():
        plugins.named(KIND_OF[kind], name)


def with_published(config: T, plugins: Plugins) -> tuple[T, tuple[str, ...]]:
    """Return the settings with the optimiser's published values where the user gave none, and notes that say so.

    The documented SGD changes nothing and needs no note. In a search the learning rates are a range, which
    `for_start` chooses; where optimisers are searched, each trial takes the values of its own, and nothing is changed
    here. Raises UnknownNameError for an optimiser that no plugin registers, ConfigError where it cannot have the
    momentum that was given.
    """
    notes = list[str]()
    names = config.tried("optimizer")
    for name in names:
        update = published_values(config, name, plugins)
        settled = config.model_copy(update=update)
        require_possible(settled, plugins.named(Optimizer, name))
        if update:
            values = ", ".join(f"{name} {value}" for name, value in update.items())
            text = f"optimizer {printable(name)}: {values} {'is' if len(update) == 1 else 'are'} its published "
            notes.append(text + f"{'value' if len(update) == 1 else 'values'}, because none is given")
    if len(names) > 1:
        return config, tuple(notes)
    settled.__pydantic_fields_set__ = set(config.model_fields_set)  # the settings that the user gave stay the same
    return settled, tuple(notes)


def published_values(config: Settings, name: str, plugins: Plugins) -> dict[str, Any]:
    """Return what the optimiser publishes for settings that the user did not give; a search chooses the rate itself."""
    asked = config.model_fields_set | ({"lr"} if isinstance(config, SearchConfig) else set())
    return {key: value for key, value in plugins.named(Optimizer, name).published.items() if key not in asked}


def require_possible(settled: Settings, optimizer: Optimizer) -> None:
    """Raise ConfigError where the settings, with an optimiser's published ones, contradict each other or it."""
    if optimizer.needs_momentum and not settled.momentum:
        raise ConfigError([f"momentum: {printable(optimizer.name)} needs one above 0, got {settled.momentum:g}"])
    if mistakes := [rule for _, rule in settled.contradictions()]:
        raise ConfigError([f"{rule} (published for {printable(optimizer.name)})" for rule in mistakes])


def default_lr(config: Settings, plugins: Plugins) -> float:
    """Return the learning rate that the optimiser publishes."""
    return published_lr(plugins.named(Optimizer, config.optimizer))


def published_lr(optimizer: Optimizer) -> float:
    """Return the learning rate that an optimiser publishes, or the documented one."""
    return float(optimizer.published.get("lr", DEFAULT_LR))


def lr_ranges(config: Settings, plugins: Plugins) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the learning rates that a search draws from: from random weights, and from trained ones.

    Where optimisers are searched, they hold the range of each.
    """
    tried = [plugins.named(Optimizer, name) for name in config.tried("optimizer")]
    return _around(one.search_lr for one in tried), _around(one.fine_tuning_lr for one in tried)


def _around(ranges: Iterable[tuple[float, float]]) -> tuple[float, float]:
    lows, highs = zip(*ranges, strict=True)
    return min(lows), max(highs)
