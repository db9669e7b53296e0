"""Loads plugins, and looks up what they register.

A registry is a dict from names to values, made from what the hooks return; the plugin manager is passed around and
never a global. Built-ins come through the same hooks as anyone else's.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from automl_pt import hookspecs
from automl_pt.backbone import Backbone, Catalogue
from automl_pt.dataset import Dataset
from automl_pt.errors import PluginError, UnknownNameError
from automl_pt.registry import Registry, V, collect

BUILTIN = ("automl_pt.builtin.torchvision_backbones", "automl_pt.builtin.timm_backbones", "automl_pt.builtin.digits")
HOOKS = tuple(sorted(name for name in vars(hookspecs) if name.startswith("register_")))
FOLDER_VARIABLE = "AUTOML_PT_PLUGINS"
OFF_VARIABLE = "AUTOML_PT_NO_PLUGINS"


@dataclass(frozen=True)
class Plugin:
    """One loaded plugin: its name, the version of its distribution, the hooks it implements, where it came from."""

    name: str
    version: str
    origin: str
    hooks: tuple[str, ...] = ()


@dataclass
class Plugins:
    """The plugins of one process: a pluggy manager, what is known of each plugin, and the files among them."""

    manager: pluggy.PluginManager
    loaded: list[Plugin] = field(default_factory=list)
    files: tuple[str, ...] = ()

    def backbones(self) -> Registry[Backbone]:
        """Return all registered backbones by name; raise PluginError for a duplicate or a wrong value."""
        return self._registry("register_backbones", Backbone, (Backbone, Catalogue))

    def datasets(self) -> Registry[Dataset]:
        """Return all registered datasets by name; raise PluginError for a duplicate or a wrong value."""
        return self._registry("register_datasets", Dataset, (Dataset,))

    def backbone(self, name: str) -> Backbone:
        """Return the backbone called `name`, or raise UnknownNameError with near names."""
        return _find("backbone", name, self.backbones(), "`automl-pt backbones` lists all of them")

    def dataset(self, name: str) -> Dataset:
        """Return the dataset called `name`, or raise UnknownNameError with near names."""
        remedy = "`automl-pt datasets` lists all of them; a path must exist"
        return _find("dataset", name, self.datasets(), remedy)

    def _registry(self, hook: str, kind: type[V], allowed: tuple[type, ...]) -> Registry[V]:
        returned = [
            (implementation.plugin_name, value)
            # pluggy calls the last registered first; in order of loading, built-ins are first
            for implementation in getattr(self.manager.hook, hook).get_hookimpls()
            for value in _returned(implementation.plugin_name, hook, kind, allowed, implementation.function)
        ]
        remedy = f"uninstall one of the two, or rename it; {OFF_VARIABLE}=1 leaves third parties out"
        return collect(kind, returned, remedy=remedy)


def load_plugins(files: Sequence[str] = ()) -> Plugins:
    """Load built-ins, then installed distributions, then the folder in `AUTOML_PT_PLUGINS`, then `files`.

    Raises PluginError, naming the plugin, when one cannot be imported or implements a hook that no specification knows.
    """
    plugins = Plugins(pluggy.PluginManager(hookspecs.GROUP), files=tuple(str(Path(file).absolute()) for file in files))
    plugins.manager.add_hookspecs(hookspecs)
    for name in BUILTIN:
        _register(plugins, importlib.import_module(name), name, version="", origin="built in")
    if not os.environ.get(OFF_VARIABLE):
        for entry_point, distribution in installed():
            _load_installed(plugins, entry_point, distribution)
        folder = os.environ.get(FOLDER_VARIABLE)
        found = sorted(Path(folder).glob("*.py")) if folder else []
        for path in [*found, *(Path(file) for file in files)]:
            _register(plugins, _import_file(path), path.stem, version="", origin=str(path))
    return plugins


def installed() -> list[tuple[EntryPoint, Distribution]]:
    """List the entry points of our group, with their distributions, in order of name; imports none of them."""
    found = {
        (entry_point.name, entry_point.value): (entry_point, distribution)
        for distribution in distributions()
        for entry_point in distribution.entry_points
        if entry_point.group == hookspecs.GROUP
    }
    return [found[key] for key in sorted(found)]


def _load_installed(plugins: Plugins, entry_point: EntryPoint, distribution: Distribution) -> None:
    name, version = distribution.metadata["Name"], distribution.version
    module = _imported(
        f"{entry_point.name} of {name} {version}",
        f"mend or remove it: `pip uninstall {name}`, or set {OFF_VARIABLE}=1",
        entry_point.load,
    )
    _register(plugins, module, entry_point.name, version=version, origin=name)


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise PluginError("a plugin file must exist", given=str(path), remedy="check the path given to --plugin")
    name = f"automl_pt_plugin_{path.stem}"
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise PluginError(
            "a plugin file is a Python file", given=str(path), remedy="give a file whose name ends in .py"
        )
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    loader = specification.loader
    _imported(str(path), "correct the file, or leave it out", lambda: loader.exec_module(module))
    return module


def _imported(name: str, remedy: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except (Exception, SystemExit) as error:
        raise PluginError(
            "a plugin must be importable", given=f"{name}: {type(error).__name__}: {error}", remedy=remedy
        ) from error


def _register(plugins: Plugins, plugin: ModuleType, name: str, *, version: str, origin: str) -> None:
    if plugins.manager.has_plugin(name):
        raise PluginError(
            "a plugin's name is taken once", given=f"{name} from {origin}", remedy="rename one of the two"
        )
    try:
        plugins.manager.register(plugin, name)
        plugins.manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(
            "a plugin implements known hooks with their arguments",
            given=f"{name} from {origin}: {error}",
            remedy=f"use one of {', '.join(HOOKS)}",
        ) from error
    hooks = tuple(sorted(caller.name for caller in plugins.manager.get_hookcallers(plugin) or ()))
    plugins.loaded.append(Plugin(name, version, origin, hooks))


def _returned(
    owner: str, hook: str, kind: type[V], allowed: tuple[type, ...], function: Callable[[], Any]
) -> list[Any]:
    try:
        values = list(function())
    except Exception as error:
        raise PluginError(
            f"the hook {hook} returns {kind.__name__} values",
            given=f"{owner}: {type(error).__name__}: {error}",
            remedy="correct the plugin, or leave it out",
        ) from error
    for value in values:
        if not isinstance(value, allowed):
            raise PluginError(
                f"the hook {hook} returns {kind.__name__} values",
                given=f"{owner}: {value!r}",
                remedy=f"return a list of automl_pt.{kind.__name__}(...)",
            )
    return values


def _find(kind: str, name: str, registry: Registry[V], remedy: str) -> V:
    if name not in registry:
        raise UnknownNameError(kind, name, list(registry), remedy=remedy)
    return registry[name]
