"""Loads plugins, and looks up what they register.

A registry maps names to values, built from what the hooks return; the plugin manager is passed as an argument, never
a global. Built-ins use the same hooks as third-party plugins. A third-party plugin that fails is skipped and named;
one requested by `--plugin` ends the command.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pluggy

from automl_pt.backbone import Backbone
from automl_pt.backbones.options import with_options
from automl_pt.builtin.validation_metrics import BY_NAME
from automl_pt.core.errors import ConfigError, PluginError, UnknownNameError
from automl_pt.dataset import Dataset
from automl_pt.plugins import hookspecs
from automl_pt.plugins.faults import plugins_fault
from automl_pt.plugins.implementations import Plugin, check_hooks, implemented, imported, values_of
from automl_pt.plugins.isolation import guarded
from automl_pt.plugins.metrics import Metric
from automl_pt.plugins.readers import ImageReader, use_readers
from automl_pt.plugins.registry import KINDS, Registry, V, collect
from automl_pt.plugins.sources import BUILTIN_ORIGIN, OFF_VARIABLE, Source, by_hand, find_sources

_log = logging.getLogger("automl_pt")


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
        return self.of_kind(Backbone)

    def datasets(self) -> Registry[Dataset]:
        """Return all registered datasets by name; raise PluginError for a required plugin that breaks the rules."""
        return self.of_kind(Dataset)

    def metrics(self) -> dict[str, Metric]:
        """Return all metrics by name, the built-in ones first; raise PluginError as `backbones` does."""
        return {**BY_NAME, **self.of_kind(Metric)}

    def objective(self, name: str) -> Metric:
        """Return the metric that `objective` names; raise UnknownNameError with near names."""
        known = self.metrics()
        names = ["val_loss", *(metric for metric in known if metric != "loss")]
        if name not in names:
            raise UnknownNameError("objective", name, names, remedy=f"use one of {', '.join(names)}")
        return known["loss" if name == "val_loss" else name]

    def of_kind(self, kind: type[V]) -> Registry[V]:
        """Return all values of a kind in `KINDS` by name; raise PluginError as `backbones` does."""
        hook = KINDS[kind].hook
        implementations: list[Any] = getattr(self.manager.hook, hook).get_hookimpls()
        # the program may register a plugin with the manager at any time
        key = (hook, *(implementation.plugin_name for implementation in implementations))
        if key not in self._registries:
            returned = [
                (implementation.plugin_name, value)
                for implementation in implementations
                for value in self._returned(implementation, hook, kind)
            ]
            labels = {name: str(self._source(name)) for name in key[1:]}
            self._registries[key], conflicts = collect(kind, returned, labels)
            for owner, conflict in conflicts:
                self._fault(self._source(owner), conflict)
        return self._registries[key]

    def backbone(self, name: str, options: Sequence[str] = ()) -> Backbone:
        """Return the backbone called `name`, with `options` (NAME=VALUE) set.

        Raises UnknownNameError with similar names, ConfigError for an unknown option.
        """
        return with_options(self.named(Backbone, name), options)

    def dataset(self, name: str) -> Dataset:
        """Return the dataset called `name`, or raise UnknownNameError with similar names."""
        return self.named(Dataset, name)

    def named(self, kind: type[V], name: str) -> V:
        """Return the value of a kind in `KINDS` that is called `name`, or raise UnknownNameError with near names."""
        registry = self.of_kind(kind)
        try:
            return registry[name]
        except KeyError:
            pass
        remedy = KINDS[kind].remedy.format(names=", ".join(registry) if "{" in KINDS[kind].remedy else "")
        if self.faults:
            remedy += "; some plugins were skipped, `automl-pt doctor` says which and why"
        raise UnknownNameError(KINDS[kind].word, name, registry.comparable(name), remedy=remedy)

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
        kind = KINDS[registry.kind].word
        with (
            plugins_fault(f"the {kind} {name} failed", whose=str(source), remedy=remedy),
            self._watched(source, f"its {kind} {name} was called"),
        ):
            yield

    def label(self, name: str) -> str:
        """Return a plugin's name for messages: with its distribution, or file, and version."""
        return str(self._source(name))

    def _returned(self, implementation: Any, hook: str, kind: type) -> list[Any]:
        source = self._source(implementation.plugin_name)
        try:
            with self._watched(source, f"its hook {hook} was called"):
                return values_of(source, hook, kind, implementation.function)
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
    use_readers(plugins.of_kind(ImageReader).values())
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


def _register(plugins: Plugins, source: Source) -> None:
    if source.name in plugins._sources:
        raise PluginError(
            "two plugins have the same name",
            given=f"{source} and {plugins._sources[source.name]}",
            remedy=f"rename one of the two, or set {OFF_VARIABLE}=1 to load no third-party plugins",
        )
    with plugins._watched(source, "it was imported"):
        plugin = imported(source)
    hooks = implemented(plugin)
    check_hooks(source, plugin, hooks)
    plugins.manager.register(plugin, source.name)
    plugins._sources[source.name] = source
    plugins.loaded.append(Plugin(source.name, source.version, source.origin, hooks))
