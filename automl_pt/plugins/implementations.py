"""Imports plugins, and checks what they implement and return, before their values are registered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pluggy

from automl_pt.backbone import Backbone, Catalogue
from automl_pt.core.errors import PluginError
from automl_pt.core.installation import explain
from automl_pt.core.likeness import did_you_mean
from automl_pt.plugins import hookspecs
from automl_pt.plugins.sources import Source, declared_hooks, find_sources

HOOKS = hookspecs.REGISTERING + hookspecs.TRACKING


@dataclass(frozen=True)
class Plugin:
    """One plugin: its name, the version of its distribution, its origin, and the hooks it implements."""

    name: str
    version: str
    origin: str
    hooks: tuple[str, ...] = ()


def survey(files: Sequence[str] = ()) -> tuple[list[Plugin], list[PluginError]]:
    """List all plugins with their hooks, and the faults of those that cannot be listed.

    Hooks are read from the sources; a plugin is imported only if its source does not state them.
    """
    found: list[Plugin] = []
    faults: list[PluginError] = []
    for source in find_sources(files):
        try:
            found.append(Plugin(source.name, source.version, source.origin, _hooks_of(source)))
        except PluginError as error:
            faults.append(error)
    return found, faults


def _hooks_of(source: Source) -> tuple[str, ...]:
    try:
        hooks = declared_hooks(source.path) if source.path else ()
    except (OSError, SyntaxError, ValueError) as error:
        raise _not_importable(source, error) from error
    return hooks or implemented(imported(source))


def imported(source: Source) -> Any:
    """Return the plugin of a source; raise PluginError when it cannot be imported."""
    try:
        return source.load()
    except PluginError:
        raise
    except (Exception, SystemExit) as error:
        raise _not_importable(source, error) from error


def _not_importable(source: Source, error: BaseException) -> PluginError:
    rule = "a plugin cannot be imported"
    known = explain(error)
    if known is not None:
        return PluginError(rule, given=f"{source}: {known.rule}; {known.given}", remedy=known.remedy)
    return PluginError(rule, given=f"{source}: {type(error).__name__}: {error}", remedy=source.remedy)


def implemented(plugin: Any) -> tuple[str, ...]:
    """Return the names of a plugin's functions that are marked as hooks, sorted."""
    manager = pluggy.PluginManager(hookspecs.GROUP)
    return tuple(name for name in sorted(dir(plugin)) if manager.parse_hookimpl_opts(plugin, name) is not None)


def check_hooks(source: Source, plugin: Any, hooks: tuple[str, ...]) -> None:
    """Raise PluginError for a plugin without hooks, with an unknown hook, or with other arguments than the hook's."""
    rule = "a plugin does not implement known hooks, marked with automl_pt.hookimpl"
    if not hooks:
        raise PluginError(rule, given=f"{source}: none", remedy=f"put @hookimpl above one of {', '.join(HOOKS)}")
    for name in sorted(set(hooks) - set(HOOKS)):
        hint = did_you_mean(name, HOOKS)
        raise PluginError(rule, given=f"{source}: {name}", remedy=f"{hint} The hooks are {', '.join(HOOKS)}".strip())
    trial = pluggy.PluginManager(hookspecs.GROUP)
    trial.add_hookspecs(hookspecs)
    try:
        trial.register(plugin, source.name)
    except pluggy.PluginValidationError as error:
        reason = " ".join(str(error).split())
        raise PluginError(rule, given=f"{source}: {reason}", remedy="give the hook the arguments it has") from error


def values_of(source: Source, hook: str, kind: type, function: Callable[[], Any]) -> list[Any]:
    """Return what a plugin's hook returns; raise PluginError when it fails or returns anything but `kind` values."""
    rule = f"the hook {hook} returns {kind.__name__} values"
    try:
        values = list(function())
    except (Exception, SystemExit) as error:
        given = f"{source}: {type(error).__name__}: {error}"
        raise PluginError(rule, given=given, remedy=source.remedy) from error
    allowed = (Backbone, Catalogue) if kind is Backbone else (kind,)
    for value in values:
        if not isinstance(value, allowed):
            given, remedy = f"{source}: {value!r}", f"return a list of automl_pt.{kind.__name__}(...)"
            raise PluginError(rule, given=given, remedy=remedy)
    return values
