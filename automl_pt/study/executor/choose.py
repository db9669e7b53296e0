"""Chooses the executor of a search, and makes it."""

from __future__ import annotations

from automl_pt.config import SearchConfig
from automl_pt.core.errors import ConfigError
from automl_pt.plugins.executors import ExecutorFactory
from automl_pt.plugins.manager import Plugins, load_plugins
from automl_pt.study.executor.base import Engine, ExecutorJob
from automl_pt.study.executor.builtin import DEFAULT, IN_PROCESS


def executor_name(config: SearchConfig, plugins: Plugins | None) -> str:
    """Return which executor a search uses: the one asked for, else this process where it must or should be that."""
    only_here = config.workers == 0 or (plugins is not None and _registered_by_hand(plugins))
    return config.engine or (IN_PROCESS if only_here or _is_over_sooner_here(config) else DEFAULT)


def _is_over_sooner_here(config: SearchConfig) -> bool:
    """Return whether trials take milliseconds, so that a process of their own would cost more than they do.

    It stays where it protects something: the other backbones, and the search from a network of a plugin file, which
    may end or hang its process; and where a trial has a time limit, which needs a process to end.
    """
    alone = len(set(config.backbones)) == 1 and not config.plugins and config.trial_timeout is None
    return alone and config.workers is None and config.trains_on_features()


def require_executor(config: SearchConfig, plugins: Plugins | None) -> None:
    """Raise UnknownNameError for an executor that no plugin registers, ConfigError for one that lacks the plugins."""
    name = executor_name(config, plugins)
    if name in (DEFAULT, IN_PROCESS) and config.engine is None:
        return
    (plugins or load_plugins(config.plugins)).named(ExecutorFactory, name)
    if name != IN_PROCESS and plugins is not None and _registered_by_hand(plugins):
        rule = "engine: plugins that the program registers by hand are known to its own process only"
        raise ConfigError([f"{rule}, got {name!r}; give 'inline', or give the plugins as files"])


def make_engine(job: ExecutorJob, plugins: Plugins | None) -> Engine:
    """Make the executor of a search; raise UnknownNameError where no plugin registers it."""
    config = job.config
    chosen = (plugins or load_plugins(config.plugins)).named(ExecutorFactory, executor_name(config, plugins))
    engine: Engine = chosen.made(job)
    return engine


def _registered_by_hand(plugins: Plugins) -> bool:
    return {name for name, _ in plugins.manager.list_name_plugin()} > {plugin.name for plugin in plugins.loaded}
