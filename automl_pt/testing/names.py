"""Checks a registered name, or everything that a plugin registers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from automl_pt.core.errors import PluginError, UnknownNameError
from automl_pt.plugins.manager import Plugins
from automl_pt.plugins.registry import Registry
from automl_pt.runs.tracking import tracker_names
from automl_pt.testing.backbones import check_backbone
from automl_pt.testing.datasets import check_dataset
from automl_pt.testing.trackers import check_tracker


def check_name(name: str, plugins: Plugins, *, root: Path | None = None) -> Iterator[str]:
    """Check the backbone or dataset of that name, or all that its plugin registers; yield each that passed.

    `root` is the folder of a dataset's files. Raises PluginError for the first violation, and
    UnknownNameError if nothing is called `name`. The content of a catalogue is not checked by its plugin's name.
    """
    backbones, datasets = plugins.backbones(), plugins.datasets()
    mine = name in {plugin.name for plugin in plugins.loaded}
    nets = [n for n in backbones.values_by_name if n == name or (mine and backbones.owners[n] == name)]
    sets = [n for n in datasets.values_by_name if n == name or (mine and datasets.owners[n] == name)]
    if not nets and name in backbones:
        nets = [name]
    tracks = name in tracker_names(plugins)
    if not nets and not sets and not tracks:
        known = [*backbones, *datasets, *(plugin.name for plugin in plugins.loaded)]
        remedy = "`automl-pt plugins`, `automl-pt backbones` and `automl-pt datasets` list them"
        raise UnknownNameError("plugin, backbone or dataset", name, known, remedy=remedy)
    for found in nets:
        with _named(plugins, backbones, found):
            check_backbone(backbones[found])
        yield f"backbone {found}"
    for found in sets:
        with _named(plugins, datasets, found):
            check_dataset(datasets[found], root=root)
        yield f"dataset {found}"
    if tracks:
        with TemporaryDirectory() as folder:
            check_tracker(name, Path(folder), plugins=plugins)
        yield f"tracker {name}"


@contextmanager
def _named(plugins: Plugins, registry: Registry[Any], name: str) -> Iterator[None]:
    """Add the plugin's name, distribution and version to a failure."""
    try:
        yield
    except PluginError as error:
        plugin = plugins.provider(registry, name)
        origin = f"{plugin.origin} {plugin.version}".strip()
        given = f"{name} of {plugin.name} ({origin}): {error.given}"
        raise PluginError(error.rule, given=given, remedy=error.remedy) from error
