"""Checks what is registered under a name, or by a plugin."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from automl_pt.augmentation import Augmentation
from automl_pt.core.errors import PluginError, UnknownNameError
from automl_pt.optimizer import Optimizer
from automl_pt.plugins.manager import Plugins
from automl_pt.plugins.registry import HOOK_OF, Registry
from automl_pt.runs.tracking import tracker_names
from automl_pt.testing.augmentations import check_augmentation
from automl_pt.testing.backbones import check_backbone
from automl_pt.testing.datasets import check_dataset
from automl_pt.testing.optimizers import check_optimizer
from automl_pt.testing.trackers import check_tracker

#: the contract of a kind that is looked up by its kind
CHECK_OF: Mapping[type, Callable[[Any], None]] = {Optimizer: check_optimizer, Augmentation: check_augmentation}


def check_name(name: str, plugins: Plugins, *, root: Path | None = None) -> Iterator[str]:
    """Check the backbone, the dataset, or all that the plugin of that name offers; yield each name that passed.

    `root` is the folder of a dataset's files. Raises PluginError for the first that breaks the contract, and
    UnknownNameError when nothing is called `name`. Of a catalogue nothing is checked by its plugin's name.
    """
    backbones, datasets = plugins.backbones(), plugins.datasets()
    mine = name in {plugin.name for plugin in plugins.loaded}
    nets = [n for n in backbones.values_by_name if n == name or (mine and backbones.owners[n] == name)]
    sets = [n for n in datasets.values_by_name if n == name or (mine and datasets.owners[n] == name)]
    if not nets and name in backbones:
        nets = [name]
    tracks = name in tracker_names(plugins)
    registries = {kind: plugins.of_kind(kind) for kind in HOOK_OF}
    others = {kind: _mine(registry, name, mine) for kind, registry in registries.items()}
    if not nets and not sets and not tracks and not any(others.values()):
        known = [*backbones, *datasets, *chain(*registries.values()), *(plugin.name for plugin in plugins.loaded)]
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
    for kind, names in others.items():
        for found in names:
            with _named(plugins, registries[kind], found):
                CHECK_OF[kind](registries[kind][found])
            yield f"{kind.__name__.lower()} {found}"
    if tracks:
        with TemporaryDirectory() as folder:
            check_tracker(name, Path(folder), plugins=plugins)
        yield f"tracker {name}"


def _mine(registry: Registry[Any], name: str, whole_plugin: bool) -> list[str]:
    """Return the names in `registry` that are `name`, or that the plugin called so has registered."""
    return [one for one in registry if one == name or (whole_plugin and registry.owners[one] == name)]


@contextmanager
def _named(plugins: Plugins, registry: Registry[Any], name: str) -> Iterator[None]:
    """Say of a failure which plugin's name it is, with its distribution and version."""
    try:
        yield
    except PluginError as error:
        plugin = plugins.provider(registry, name)
        origin = f"{plugin.origin} {plugin.version}".strip()
        given = f"{name} of {plugin.name} ({origin}): {error.given}"
        raise PluginError(error.rule, given=given, remedy=error.remedy) from error
