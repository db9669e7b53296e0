"""The contract checks of everything that a plugin registers, by the name of the plugin or of what it registers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from automl_pt.core.errors import PluginError, UnknownNameError
from automl_pt.plugins.manager import Plugins
from automl_pt.plugins.registry import KIND_OF, Registry
from automl_pt.runs.tracking import tracker_names
from automl_pt.testing.augmentations import check_augmentation
from automl_pt.testing.backbones import check_backbone
from automl_pt.testing.datasets import check_dataset
from automl_pt.testing.executors import check_executor
from automl_pt.testing.metrics import check_metric
from automl_pt.testing.optimizers import check_optimizer
from automl_pt.testing.pruners import check_pruner
from automl_pt.testing.readers import check_reader
from automl_pt.testing.samplers import check_sampler
from automl_pt.testing.trackers import check_tracker

#: the check of each kind of value that a plugin can register, by its name in messages
CHECKS: dict[str, Callable[..., object]] = {
    "backbone": check_backbone,
    "dataset": check_dataset,
    "optimizer": check_optimizer,
    "augmentation": check_augmentation,
    "sampler": check_sampler,
    "pruner": check_pruner,
    "executor": check_executor,
    "metric": check_metric,
    "reader": check_reader,
}


def check_name(name: str, plugins: Plugins, *, root: Path | None = None) -> Iterator[str]:
    """Check what is registered as `name`, or all that the plugin of that name registers; yield each that passed.

    `root` is the folder of a dataset's files. Raises PluginError for the first violation, and
    UnknownNameError if nothing is called `name`. The content of a catalogue is not checked by its plugin's name.
    """
    is_plugin = name in {plugin.name for plugin in plugins.loaded}
    known, passed = list[str](), 0
    more: dict[str, dict[str, Any]] = {"dataset": {"root": root}, "pruner": {"plugins": plugins}}
    for word, kind in KIND_OF.items():
        registry: Registry[Any] = plugins.of_kind(kind)
        known += registry
        listed = [n for n in registry.values_by_name if n == name or (is_plugin and registry.owners[n] == name)]
        for found in listed or ([name] if name in registry else []):
            with _named(plugins, registry, found):
                CHECKS[word](found if word == "pruner" else registry[found], **more.get(word, {}))
            yield f"{word} {found}"
            passed += 1
    if name in tracker_names(plugins):
        with TemporaryDirectory() as folder:
            check_tracker(name, Path(folder), plugins=plugins)
        yield f"tracker {name}"
    elif not passed:
        known += [plugin.name for plugin in plugins.loaded]
        remedy = "`automl-pt plugins`, `automl-pt backbones` and `automl-pt datasets` list them"
        raise UnknownNameError(f"plugin, {', '.join(KIND_OF)}", name, known, remedy=remedy)


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
