"""What an optimiser publishes for settings that the user does not give; settled before anything else is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from automl_pt.config import SearchConfig, Settings, TrainConfig
from automl_pt.core.errors import ConfigError
from automl_pt.core.text import printable
from automl_pt.plugins.optimizers import Optimizer
from automl_pt.plugins.registry import KIND_OF
from automl_pt.runs.start import starts_from_weights

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

    The documented SGD changes nothing and needs no note. A run whose whole network trains from weights takes the
    values for fine-tuning. In a search the learning rates are a range, which `for_start` chooses; where optimisers are
    searched, each trial takes the values of its own, and nothing is changed here. Raises UnknownNameError for an
    optimiser that no plugin registers, ConfigError where it cannot have the momentum that was given.
    """
    notes = list[str]()
    names = config.tried("optimizer")
    for name in names:
        optimizer = plugins.named(Optimizer, name)
        fine_tunes = bool(optimizer.published) and isinstance(config, TrainConfig) and _fine_tunes(config, plugins)
        update = published_values(config, optimizer, fine_tunes=fine_tunes)
        settled = config.model_copy(update=update)
        require_possible(settled, optimizer)
        if update:
            values = ", ".join(f"{name} {value}" for name, value in update.items())
            text = f"optimizer {printable(name)}: {values} {'is' if len(update) == 1 else 'are'} its published "
            what = " for fine-tuning" if fine_tunes and optimizer.fine_tuning else ""
            notes.append(f"{text}{'value' if len(update) == 1 else 'values'}{what}, because none is given")
        if fine_tunes and "lr" in update and "lr" not in optimizer.fine_tuning:
            low, high = optimizer.fine_tuning_lr
            text = f"optimizer {printable(name)}: its lr is published for random weights, none for fine-tuning"
            notes.append(f"{text}, so that it may be too high; give --lr (a search tries {low:g} to {high:g})")
    if len(names) > 1:
        return config, tuple(notes)
    settled.__pydantic_fields_set__ = set(config.model_fields_set)  # the settings that the user gave stay the same
    return settled, tuple(notes)


def _fine_tunes(config: TrainConfig, plugins: Plugins) -> bool:
    """Return whether the whole network of a run trains from weights."""
    return config.freeze == "none" and starts_from_weights(config, plugins)


def published(optimizer: Optimizer, *, fine_tunes: bool) -> dict[str, Any]:
    """Return the values that an optimiser publishes, where the whole network trains from weights those for that."""
    return {**optimizer.published, **(optimizer.fine_tuning if fine_tunes else {})}


def published_values(config: Settings, optimizer: Optimizer, *, fine_tunes: bool) -> dict[str, Any]:
    """Return what the optimiser publishes for settings that the user did not give; a search chooses the rate itself."""
    asked = config.model_fields_set | ({"lr"} if isinstance(config, SearchConfig) else set())
    found = published(optimizer, fine_tunes=fine_tunes)
    return {key: value for key, value in found.items() if key not in asked}


def require_possible(settled: Settings, optimizer: Optimizer) -> None:
    """Raise ConfigError where the settings, with an optimiser's published ones, contradict each other or it."""
    if optimizer.needs_momentum and not settled.momentum:
        raise ConfigError([f"momentum: {printable(optimizer.name)} needs one above 0, got {settled.momentum:g}"])
    if mistakes := [rule for _, rule in settled.contradictions()]:
        raise ConfigError([f"{rule} (published for {printable(optimizer.name)})" for rule in mistakes])


def default_lr(config: SearchConfig, plugins: Plugins) -> float:
    """Return the learning rate of trial 0 that the optimiser publishes."""
    return published_lr(plugins.named(Optimizer, config.optimizer), fine_tunes=config.fine_tunes)


def published_lr(optimizer: Optimizer, *, fine_tunes: bool) -> float:
    """Return the learning rate that an optimiser publishes, or the documented one."""
    return float(published(optimizer, fine_tunes=fine_tunes).get("lr", DEFAULT_LR))


def lr_ranges(config: Settings, plugins: Plugins) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the learning rates that a search draws from: from random weights, and from trained ones.

    Where optimisers are searched, they hold the range of each.
    """
    tried = [plugins.named(Optimizer, name) for name in config.tried("optimizer")]
    return _around(one.search_lr for one in tried), _around(one.fine_tuning_lr for one in tried)


def _around(ranges: Iterable[tuple[float, float]]) -> tuple[float, float]:
    lows, highs = zip(*ranges, strict=True)
    return min(lows), max(highs)
