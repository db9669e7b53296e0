"""What an optimiser publishes for settings that the user does not give; settled before anything else is."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from automl_pt.config import SearchConfig, Settings
from automl_pt.core.errors import ConfigError
from automl_pt.core.text import printable
from automl_pt.optimizer import Optimizer

if TYPE_CHECKING:
    from automl_pt.plugins.manager import Plugins

T = TypeVar("T", bound=Settings)

#: the learning rate of trial 0 where the optimiser publishes none: the documented one
DEFAULT_LR = 0.001


def with_published(config: T, plugins: Plugins) -> tuple[T, tuple[str, ...]]:
    """Return the settings with the optimiser's published values where the user gave none, and notes that say so.

    The documented SGD changes nothing and needs no note. In a search the learning rates are a range, which
    `for_start` chooses. Raises UnknownNameError for an optimiser that no plugin registered, ConfigError where it cannot
    have the momentum that was given.
    """
    optimizer = plugins.named(Optimizer, config.optimizer)
    asked, is_search = config.model_fields_set, isinstance(config, SearchConfig)
    update = {
        name: value
        for name, value in optimizer.published.items()
        if name not in asked and not (is_search and name == "lr")
    }
    settled = config.model_copy(update=update)
    settled.__pydantic_fields_set__ = set(asked)  # the settings that the user gave stay the same
    if optimizer.needs_momentum and not settled.momentum:
        raise ConfigError([f"momentum: {printable(optimizer.name)} needs one above 0, got {settled.momentum:g}"])
    if mistakes := [rule for _, rule in settled.contradictions()]:
        raise ConfigError([f"{rule} (published for {printable(optimizer.name)})" for rule in mistakes])
    values = ", ".join(f"{name} {value}" for name, value in update.items())
    text = f"optimizer {printable(optimizer.name)}: {values} {'is' if len(update) == 1 else 'are'} its published "
    return settled, (text + f"{'value' if len(update) == 1 else 'values'}, because none is given",) if update else ()


def default_lr(config: Settings, plugins: Plugins) -> float:
    """Return the learning rate that the optimiser publishes."""
    return float(plugins.named(Optimizer, config.optimizer).published.get("lr", DEFAULT_LR))


def lr_ranges(config: Settings, plugins: Plugins) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the learning rates that a search draws from: from random weights, and from trained ones."""
    optimizer = plugins.named(Optimizer, config.optimizer)
    return optimizer.search_lr, optimizer.fine_tuning_lr
