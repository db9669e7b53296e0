"""The contract checks of everything that a plugin registers, by the name of the plugin or of what it registers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from automl_pt.core.errors import PluginError, UnknownNameError
from automl_pt.plugins.augmentations import Augmentation
from automl_pt.plugins.manager import Plugins
from automl_pt.plugins.optimizers import Optimizer
from automl_pt.plugins.registry import Registry
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

#: what a plugin can register: its name in messages, its registry, its check
KINDS: tuple[tuple[str, Callable[[Plugins], Registry[Any]], Callable[..., object]], ...] = (
    ("backbone", Plugins.backbones, check_backbone),
    ("dataset", Plugins.datasets, check_dataset),
    ("optimizer", lambda plugins: plugins.of_kind(Optimizer), check_optimizer),
    ("augmentation", lambda plugins: plugins.of_kind(Augmentation), check_augmentation),
    ("sampler", Plugins.samplers, check_sampler),
    ("pruner", Plugins.pruners, check_pruner),
    ("executor", Plugins.executors, check_executor),
    ("metric", Plugins.registered_metrics, check_metric),
    ("reader", Plugins.readers, check_reader),
)


def check_name(name: str, plugins: Plugins, *, root: Path | None = None) -> Iterator[str]:
    """Check what is registered as `name`, or all that the plugin of that name registers; yield each that passed.

    `root` is the folder of a dataset's files. Raises PluginError for the first violation, and
    UnknownNameError if nothing is called `name`. The content of a catalogue is not checked by its plugin's name.
    """
    is_plugin = name in {plugin.name for plugin in plugins.loaded}
    known, passed = list[str](), 0
    more: dict[str, dict[str, Any]] = {"dataset": {"root": root}, "pruner": {"plugins": plugins}}
    for word, registry_of, check in KINDS:
        registry = registry_of(plugins)
        known += registry
        listed = [n for n in registry.values_by_name if n == name or (is_plugin and registry.owners[n] == name)]
        for found in listed or ([name] if name in registry else []):
            with _named(plugins, registry, found):
                check(found if word == "pruner" else registry[found], **more.get(word, {}))
            yield f"{word} {found}"
            passed += 1
    if name in tracker_names(plugins):
        with TemporaryDirectory() as folder:
            check_tracker(name, Path(folder), plugins=plugins)
        yield f"tracker {name}"
    elif not passed:
        known += [plugin.name for plugin in plugins.loaded]
        remedy = "`automl-pt plugins`, `automl-pt backbones` and `automl-pt datasets` list them"
        raise UnknownNameError(f"plugin, {', '.join(word for word, *_ in KINDS)}", name, known, remedy=remedy)


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
