"""Loads plugins, and looks up what they register.

A registry maps names to values, built from what the hooks return; the plugin manager is passed as an argument, never
a global. Built-ins use the same hooks as third-party plugins. A third-party plugin that fails is skipped and named;
one requested by `--plugin` ends the command.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import pluggy

from automl_pt.backbone import Backbone, Catalogue
from automl_pt.backbones.options import with_options
from automl_pt.builtin.validation_metrics import BY_NAME
from automl_pt.core.errors import ConfigError, PluginError, UnknownNameError
from automl_pt.core.installation import explain
from automl_pt.dataset import Dataset
from automl_pt.plugins import hookspecs
from automl_pt.plugins.executors import ExecutorFactory
from automl_pt.plugins.faults import plugins_fault
from automl_pt.plugins.isolation import guarded
from automl_pt.plugins.metrics import Metric
from automl_pt.plugins.pruners import Pruner
from automl_pt.plugins.readers import ImageReader, use_readers
from automl_pt.plugins.registry import HOOK_OF, Registry, V, collect
from automl_pt.plugins.samplers import Sampler
from automl_pt.plugins.sources import BUILTIN_ORIGIN, OFF_VARIABLE, Source, by_hand, declared_hooks, find_sources

HOOKS = hookspecs.REGISTERING + hookspecs.TRACKING
_log = logging.getLogger("automl_pt")


@dataclass(frozen=True)
class Plugin:
    """One plugin: its name, the version of its distribution, its origin, and the hooks it implements."""

    name: str
    version: str
    origin: str
    hooks: tuple[str, ...] = ()


@dataclass(eq=False)  # compared by identity, so that results can be cached per loading
class Plugins:
    """The plugins of one process: a pluggy manager, the data of each plugin, and which were skipped and why."""

    manager: pluggy.PluginManager
    loaded: list[Plugin] = field(default_factory=list)
    #: absolute paths of the files given by --plugin, so that other processes can load them too
    files: tuple[str, ...] = ()
    faults: list[PluginError] = field(default_factory=list)
    #: side effects of plugins that were reverted
    notes: list[str] = field(default_factory=list)
    _sources: dict[str, Source] = field(default_factory=dict)
    _registries: dict[tuple[str, ...], Registry[Any]] = field(default_factory=dict)

    def backbones(self) -> Registry[Backbone]:
        """Return all registered backbones by name; raise PluginError for a required plugin that breaks the rules."""
        return self._registry("register_backbones", Backbone, (Backbone, Catalogue))

    def datasets(self) -> Registry[Dataset]:
        """Return all registered datasets by name; raise PluginError for a required plugin that breaks the rules."""
        return self._registry("register_datasets", Dataset, (Dataset,))

    def executors(self) -> Registry[ExecutorFactory]:
        """Return all registered executors by name; raise PluginError for a required plugin that breaks the rules."""
        return self._registry("register_executors", ExecutorFactory, (ExecutorFactory,))

    def executor(self, name: str) -> ExecutorFactory:
        """Return the executor called `name`, or raise UnknownNameError with near names."""
        registry = self.executors()
        return self._find("executor", name, registry, f"--engine takes one of {', '.join(registry)}")

    def metrics(self) -> dict[str, Metric]:
        """Return all metrics by name, the built-in ones first; raise PluginError as `backbones` does."""
        return {**BY_NAME, **self.registered_metrics()}

    def objective(self, name: str) -> Metric:
        """Return the metric that `objective` names; raise UnknownNameError with near names."""
        known = self.metrics()
        names = ["val_loss", *(metric for metric in known if metric != "loss")]
        if name not in names:
            raise UnknownNameError("objective", name, names, remedy=f"use one of {', '.join(names)}")
        return known["loss" if name == "val_loss" else name]

    def registered_metrics(self) -> Registry[Metric]:
        """Return what `register_metrics` gave, with the plugin that each metric is of."""
        return self._registry("register_metrics", Metric, (Metric,))

    def samplers(self) -> Registry[Sampler]:
        """Return all registered samplers by name; raise PluginError for a required plugin that breaks the rules."""
        return self._registry("register_samplers", Sampler, (Sampler,))

    def pruners(self) -> Registry[Pruner]:
        """Return all registered pruners by name; raise PluginError for a required plugin that breaks the rules."""
        return self._registry("register_pruners", Pruner, (Pruner,))

    def sampler(self, name: str) -> Sampler:
        """Return the sampler called `name`, or raise UnknownNameError with near names."""
        registry = self.samplers()
        return self._find("sampler", name, registry, f"--sampler takes one of {', '.join(registry)}")

    def pruner(self, name: str) -> Pruner:
        """Return the pruner called `name`, or raise UnknownNameError with near names."""
        registry = self.pruners()
        return self._find("pruner", name, registry, f"--pruner takes one of {', '.join(registry)}")

    def readers(self) -> Registry[ImageReader]:
        """Return all registered image formats by name; raise PluginError as `backbones` does."""
        return self._registry("register_readers", ImageReader, (ImageReader,))

    def of_kind(self, kind: type[V]) -> Registry[V]:
        """Return all registered values of a kind in `HOOK_OF`; raise PluginError as `backbones` does."""
        return self._registry(HOOK_OF[kind], kind, (kind,))

    def backbone(self, name: str, options: Sequence[str] = ()) -> Backbone:
        """Return the backbone called `name`, with `options` (NAME=VALUE) set.

        Raises UnknownNameError with similar names, ConfigError for an unknown option.
        """
        found = self._find("backbone", name, self.backbones(), "`automl-pt backbones` lists all of them")
        return with_options(found, options)

    def dataset(self, name: str) -> Dataset:
        """Return the dataset called `name`, or raise UnknownNameError with similar names."""
        remedy = "`automl-pt datasets` lists all of them; a path must exist"
        return self._find("dataset", name, self.datasets(), remedy)

    def named(self, kind: type[V], name: str) -> V:
        """Return the value of a kind in `HOOK_OF` that is called `name`, or raise UnknownNameError with near names."""
        registry = self.of_kind(kind)
        return self._find(kind.__name__.lower(), name, registry, f"there are {', '.join(registry)}")

    def provider(self, registry: Registry[Any], name: str) -> Plugin:
        """Return the plugin that registered `name`; raise KeyError when none did."""
        source = self._source(registry.owner(name))
        known = (plugin for plugin in self.loaded if plugin.name == source.name)
        return next(known, Plugin(source.name, source.version, source.origin))

    def is_builtin(self, backbone: str) -> bool:
        """Return whether a built-in backbone is registered under this name."""
        return self.provider(self.backbones(), backbone).origin == BUILTIN_ORIGIN

    def is_own(self, registry: Registry[Any], name: str) -> bool:
        """Say whether `name` is registered by this package itself."""
        return self.provider(registry, name).origin == BUILTIN_ORIGIN

    def owner_label(self, registry: Registry[Any], name: str) -> str:
        """Return how the plugin that registered `name` is named in messages."""
        return self.label(registry.owner(name))

    @contextmanager
    def running(self, registry: Registry[Any], name: str) -> Iterator[None]:
        """Run code of a registered value in the block: errors name its plugin, and what it changed is restored."""
        source = self._source(registry.owner(name))
        remedy = f"correct the plugin, or search without it; {source.remedy}"
        kind = registry.kind.__name__.lower()
        with (
            plugins_fault(f"the {kind} {name} failed", whose=str(source), remedy=remedy),
            self._watched(source, f"its {kind} {name} was called"),
        ):
            yield

    def label(self, name: str) -> str:
        """Return a plugin's name for messages: with its distribution, or file, and version."""
        return str(self._source(name))

    def _find(self, kind: str, name: str, registry: Registry[V], remedy: str) -> V:
        try:
            return registry[name]
        except KeyError:
            pass
        if self.faults:
            remedy += "; some plugins were skipped, `automl-pt doctor` says which and why"
        raise UnknownNameError(kind, name, list(registry), remedy=remedy)

    def _registry(self, hook: str, kind: type[V], allowed: tuple[type, ...]) -> Registry[V]:
        implementations: list[Any] = getattr(self.manager.hook, hook).get_hookimpls()
        # the program may register a plugin with the manager at any time
        key = (hook, *(implementation.plugin_name for implementation in implementations))
        if key not in self._registries:
            returned = [
                (implementation.plugin_name, value)
                for implementation in implementations
                for value in self._returned(implementation, hook, kind, allowed)
            ]
            labels = {name: str(self._source(name)) for name in key[1:]}
            self._registries[key], conflicts = collect(kind, returned, labels)
            for owner, conflict in conflicts:
                self._fault(self._source(owner), conflict)
        return self._registries[key]

    def _returned(self, implementation: Any, hook: str, kind: type, allowed: tuple[type, ...]) -> list[Any]:
        source = self._source(implementation.plugin_name)
        try:
            with self._watched(source, f"its hook {hook} was called"):
                return _values(source, hook, kind, allowed, implementation.function)
        except PluginError as error:
            self._fault(source, error)
            return []

    @contextmanager
    def _watched(self, source: Source, occasion: str) -> Iterator[None]:
        if source.origin == BUILTIN_ORIGIN:
            yield
            return
        changed: list[str] = []
        try:
            with guarded() as changed:
                yield
        finally:
            if changed:
                self.notes.append(f"plugin {source} changed {' and '.join(changed)} when {occasion}; it was restored")
                _log.warning(self.notes[-1])

    def _source(self, name: str) -> Source:
        return self._sources.get(name) or by_hand(name)

    def _fault(self, source: Source, error: PluginError) -> None:
        if source.required:
            raise error
        self.faults.append(error)
        _log.warning("plugin skipped: %s", error)


def load_plugins(files: Sequence[str] = ()) -> Plugins:
    """Load built-ins, then installed distributions, then the folder in `AUTOML_PT_PLUGINS`, then `files`.

    A plugin that cannot be imported or violates the rules is skipped, with the reason in `faults` and a logged warning;
    if it is one of `files`, this raises a PluginError that names it.
    """
    sources = find_sources(files)
    plugins = Plugins(pluggy.PluginManager(hookspecs.GROUP))
    plugins.manager.add_hookspecs(hookspecs)
    for source in sources:
        try:
            _register(plugins, source)
        except PluginError as error:
            plugins._fault(source, error)
    plugins.files = tuple(source.origin for source in sources if source.required and source.origin != BUILTIN_ORIGIN)
    use_readers(plugins.readers().values())
    return plugins


#: accepted as `plugins`: a loaded `Plugins`, or plugin files, one or several
PluginFiles = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def given_plugins(given: Plugins | PluginFiles | None) -> tuple[Plugins | None, tuple[str, ...]]:
    """Return a loaded `Plugins`, or the names of plugin files, from what Python callers pass as `plugins`.

    Raises ConfigError for anything else. The files are not loaded here.
    """
    if given is None or isinstance(given, Plugins):
        return given, ()
    files = [given] if isinstance(given, str | os.PathLike) else given
    if not isinstance(files, Sequence) or not all(isinstance(file, str | os.PathLike) for file in files):
        rule = (
            "plugins: must be plugin files, such as ['mine.py'], or what automl_pt.plugins.manager.load_plugins returns"
        )
        raise ConfigError([f"{rule}, got {given!r}"])
    return None, tuple(os.fsdecode(file) for file in files)


def loaded_plugins(given: Plugins | PluginFiles | None) -> Plugins:
    """Return `given` if it is loaded, else load the installed plugins and the given files."""
    plugins, files = given_plugins(given)
    return plugins if plugins is not None else load_plugins(files)


def survey(files: Sequence[str] = ()) -> tuple[list[Plugin], list[PluginError]]:
    """List all plugins with their hooks, and the faults of those that cannot be listed.

    Hooks are read from the sources; a plugin is imported only if its source does not state them.
    """
    found: list[Plugin] = []
    faults: list[PluginError] = []
    for source in find_sources(files):
        try:
            found.append(Plugin(source.name, source.version, source.origin, _hooks(source)))
        except PluginError as error:
            faults.append(error)
    return found, faults


def _hooks(source: Source) -> tuple[str, ...]:
    try:
        hooks = declared_hooks(source.path) if source.path else ()
    except (OSError, SyntaxError, ValueError) as error:
        raise _not_importable(source, error) from error
    return hooks or _implemented(_imported(source))


def _register(plugins: Plugins, source: Source) -> None:
    if source.name in plugins._sources:
        raise PluginError(
            "two plugins have the same name",
            given=f"{source} and {plugins._sources[source.name]}",
            remedy=f"rename one of the two, or set {OFF_VARIABLE}=1 to load no third-party plugins",
        )
    with plugins._watched(source, "it was imported"):
        plugin = _imported(source)
    hooks = _implemented(plugin)
    _check_hooks(source, plugin, hooks)
    plugins.manager.register(plugin, source.name)
    plugins._sources[source.name] = source
    plugins.loaded.append(Plugin(source.name, source.version, source.origin, hooks))


def _imported(source: Source) -> Any:
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


def _implemented(plugin: Any) -> tuple[str, ...]:
    manager = pluggy.PluginManager(hookspecs.GROUP)
    return tuple(name for name in sorted(dir(plugin)) if manager.parse_hookimpl_opts(plugin, name) is not None)


def _check_hooks(source: Source, plugin: Any, hooks: tuple[str, ...]) -> None:
    """Raise PluginError for a plugin without hooks, with an unknown hook, or with other arguments than the hook's."""
    rule = "a plugin does not implement known hooks, marked with automl_pt.hookimpl"
    if not hooks:
        raise PluginError(rule, given=f"{source}: none", remedy=f"put @hookimpl above one of {', '.join(HOOKS)}")
    for name in sorted(set(hooks) - set(HOOKS)):
        near = get_close_matches(name, HOOKS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise PluginError(rule, given=f"{source}: {name}", remedy=f"{hint}The hooks are {', '.join(HOOKS)}")
    trial = pluggy.PluginManager(hookspecs.GROUP)
    trial.add_hookspecs(hookspecs)
    try:
        trial.register(plugin, source.name)
    except pluggy.PluginValidationError as error:
        reason = " ".join(str(error).split())
        raise PluginError(rule, given=f"{source}: {reason}", remedy="give the hook the arguments it has") from error


def _values(source: Source, hook: str, kind: type, allowed: tuple[type, ...], function: Callable[[], Any]) -> list[Any]:
    rule = f"the hook {hook} returns {kind.__name__} values"
    try:
        values = list(function())
    except (Exception, SystemExit) as error:
        given = f"{source}: {type(error).__name__}: {error}"
        raise PluginError(rule, given=given, remedy=source.remedy) from error
    for value in values:
        if not isinstance(value, allowed):
            given, remedy = f"{source}: {value!r}", f"return a list of automl_pt.{kind.__name__}(...)"
            raise PluginError(rule, given=given, remedy=remedy)
    return values
