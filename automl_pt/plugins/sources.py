"""Lists the sources of plugins without importing any: built-ins, installed distributions, a folder, files."""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from automl_pt.core.errors import PluginError
from automl_pt.plugins.hookspecs import GROUP

BUILTIN = (
    "automl_pt.builtin.torchvision_backbones",
    "automl_pt.builtin.timm_backbones",
    "automl_pt.builtin.digits",
    "automl_pt.builtin.torchvision_datasets",
    "automl_pt.builtin.optimizers",
    "automl_pt.builtin.augmentations",
    "automl_pt.builtin.tiff",
    "automl_pt.study.executor.builtin",
    "automl_pt.builtin.validation_metrics",
    "automl_pt.study.space.builtin",
    "automl_pt.study.pruning.builtin",
)
BUILTIN_ORIGIN = "built in"
FOLDER_VARIABLE = "AUTOML_PT_PLUGINS"
OFF_VARIABLE = "AUTOML_PT_NO_PLUGINS"


@dataclass(frozen=True)
class Source:
    """A plugin that can be loaded.

    `origin` is "built in", a distribution's name or a file's path. A failure of a `required` one ends the command,
    because it is built in or was requested by name; any other is skipped and named.
    """

    name: str
    version: str
    origin: str
    required: bool
    load: Callable[[], Any]
    #: the plugin's file, if it can be found without importing anything
    path: Path | None
    remedy: str

    def __str__(self) -> str:
        version = f" {self.version}" if self.version else ""
        return f"{self.name} ({self.origin}{version})"


def find_sources(files: Sequence[str] = ()) -> list[Source]:
    """List the plugins in loading order: built-ins, distributions, the folder's, `files`."""
    found = [_builtin(name) for name in BUILTIN]
    if not os.environ.get(OFF_VARIABLE):
        found += [_installed(entry_point) for entry_point in installed()]
        found += [_file(path, required=False) for path in _folder()]
    taken = {source.path for source in found}
    return found + [_file(path, required=True) for path in map(_absolute, files) if path not in taken]


def installed() -> list[EntryPoint]:
    """List the entry points of our group, sorted by name, without importing them."""
    return sorted(entry_points(group=GROUP), key=lambda entry_point: (entry_point.name, entry_point.value))


def by_hand(name: str) -> Source:
    """Describe a plugin that the program itself registered with the manager."""
    return Source(name, "", "registered by hand", True, lambda: None, None, "correct what the program registers")


def declared_hooks(path: Path) -> tuple[str, ...]:
    """Return the functions marked `hookimpl` in a plugin's source; raise OSError or SyntaxError as reading does.

    Empty if no plain decorator marks them, in which case only loading reveals the hooks.
    """
    tree = ast.parse(path.read_bytes(), filename=str(path))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return tuple(sorted({node.name for node in functions if any(map(_marks_hook, node.decorator_list))}))


def _marks_hook(decorator: ast.expr) -> bool:
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    name = target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")
    return name == "hookimpl"


def _builtin(name: str) -> Source:
    short = name.removeprefix("automl_pt.").removeprefix("builtin.")
    path = Path(__file__).parents[2].joinpath(*name.split(".")).with_suffix(".py")
    remedy = "install automl-pt anew; a part of it is missing"
    return Source(short, "", BUILTIN_ORIGIN, True, lambda: import_module(name), path, remedy)


def _installed(entry_point: EntryPoint) -> Source:
    distribution = entry_point.dist
    name = distribution.metadata["Name"] if distribution else "unknown"
    version = distribution.version if distribution else ""
    remedy = f"repair it, or remove it with `pip uninstall {name}`; {OFF_VARIABLE}=1 loads no third-party plugins"
    return Source(entry_point.name, version, name, False, entry_point.load, _module_path(entry_point.module), remedy)


def _module_path(module: str) -> Path | None:
    """Return a module's file, without importing its package."""
    package, _, rest = module.partition(".")
    try:
        specification = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    if specification is None:
        return None
    if not rest:
        return Path(specification.origin) if specification.origin else None
    bases = [Path(folder).joinpath(*rest.split(".")) for folder in specification.submodule_search_locations or ()]
    candidates = [path for base in bases for path in (base.with_suffix(".py"), base / "__init__.py")]
    return next((path for path in candidates if path.is_file()), None)


def _folder() -> list[Path]:
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return []
    if not Path(folder).is_dir():
        raise PluginError(
            f"{FOLDER_VARIABLE} does not name a folder", given=folder, remedy=f"create it, or unset {FOLDER_VARIABLE}"
        )
    return sorted(_absolute(path) for path in Path(folder).glob("*.py"))


def _file(path: Path, *, required: bool) -> Source:
    remedy = "correct the file, or remove the option" if required else f"correct it, or move it out of {path.parent}"
    return Source(path.stem, "", str(path), required, lambda: _import_file(path), path, remedy)


def _absolute(path: str | Path) -> Path:
    return Path(os.path.abspath(path))


def _import_file(path: Path) -> ModuleType:
    if path.is_dir():
        raise PluginError(
            "--plugin was given a folder, not a file",
            given=f"{path}",
            remedy=f"name its .py files one by one, or set {FOLDER_VARIABLE} to the folder, which loads all of them",
        )
    if not path.is_file():
        raise PluginError("plugin file not found", given=str(path), remedy="check the path given to --plugin")
    name = f"automl_pt_plugin_{path.stem}"
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise PluginError("the plugin file is not a Python file", given=str(path), remedy="give a .py file")
    module = importlib.util.module_from_spec(specification)
    # needed to pickle and deep-copy functions of the plugin
    sys.modules[name] = module
    try:
        specification.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
