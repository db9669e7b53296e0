"""Records the third-party plugins that a run or study uses, and says what to do if one is missing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from automl_pt.core.files import sha256_file
from automl_pt.core.text import printable
from automl_pt.plugins.manager import Plugins
from automl_pt.plugins.registry import KIND_OF, Registry

BUILT_IN = "built in"
#: the distributions of the repository's own plugins
_OWN = re.compile(r"automl-pt-(?:example|huggingface|lite|mlflow|synthetic|tensorboard|wandb|webdataset|dicom|hub)")


def used_plugins(plugins: Plugins, named: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return `name`, `version`, `origin` and `hooks` of the third-party plugins that registered what is `named`.

    Each is a pair of kind and name, see `Settings.named_values`. A file has no version, and its content stands for one.
    A name that no plugin registered, such as a dataset's path, is ignored.
    """
    found: dict[str, dict[str, Any]] = {}
    for kind, name in named:
        registry: Registry[Any] = plugins.of_kind(KIND_OF[kind])
        if name not in registry:
            continue
        plugin = plugins.provider(registry, name)
        if plugin.origin != BUILT_IN:
            found[plugin.name] = {**asdict(plugin), "version": plugin.version or _content(Path(plugin.origin))}
    return [found[name] for name in sorted(found)]


def recorded(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the plugins in a run.json or study.json; raise ValueError if they are not objects."""
    found = record.get("plugins", [])
    if not isinstance(found, list) or not all(isinstance(plugin, dict) for plugin in found):
        raise ValueError("plugins is not a list of objects")
    return found


def _content(path: Path) -> str:
    """Return a text that identifies the content of a plugin file; empty for anything else."""
    try:
        return f"sha256 {sha256_file(path)[:12]}" if path.suffix == ".py" else ""
    except OSError:
        return ""  # it existed when it was imported, and was removed since


def missing_plugins(used: Sequence[Mapping[str, Any]], plugins: Plugins) -> list[Mapping[str, Any]]:
    """Return those of `used` that are not loaded now."""
    loaded = {name for name, _ in plugins.manager.list_name_plugin()}
    return [plugin for plugin in used if plugin.get("name") not in loaded]


def told(used: Iterable[Mapping[str, Any]]) -> str:
    """Return the names of plugins with version and origin."""
    return ", ".join(
        f"{printable(plugin.get('name'))} ({' '.join(filter(None, map(printable, _where(plugin))))})" for plugin in used
    )


def how_to_get(used: Iterable[Mapping[str, Any]]) -> str:
    """Return the commands that make `used` available again: `pip install` for distributions, --plugin for files.

    Names may come from another person's model directory; they are quoted, so that each is one word when copied.
    """
    distributions, files, own = [], [], []
    for plugin in used:
        origin, version = _where(plugin)
        if origin.endswith(".py"):
            files.append(f"--plugin {shlex.quote(printable(origin))}")
        elif _OWN.fullmatch(origin):  # on no package index, but in the repository
            own.append(f"./plugins/{origin}")
        elif origin != "registered by hand":
            distributions.append(shlex.quote(printable(f"{origin}=={version}" if version else origin)))
    steps = [f"`pip install {' '.join(distributions)}`"] if distributions else []
    steps += [f"`pip install {' '.join(own)}` in the checkout of automl-pt"] if own else []
    steps += [f"name the file at its present path: `{' '.join(files)}`"] if files else []
    steps = steps or ["register the plugin by hand, as the original program did"]
    return "; ".join([*steps, "`automl-pt doctor` says which plugins were skipped, and why"])


def _where(plugin: Mapping[str, Any]) -> tuple[str, str]:
    return str(plugin.get("origin") or ""), str(plugin.get("version") or "")
