"""Maps names to the values that plugins' hooks returned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from automl_pt.backbone import Backbone, Catalogue
from automl_pt.core.errors import PluginError
from automl_pt.core.likeness import similar
from automl_pt.dataset import Dataset
from automl_pt.plugins.augmentations import Augmentation
from automl_pt.plugins.executors import ExecutorFactory
from automl_pt.plugins.metrics import Metric
from automl_pt.plugins.optimizers import Optimizer
from automl_pt.plugins.pruners import Pruner
from automl_pt.plugins.readers import ImageReader
from automl_pt.plugins.samplers import Sampler

V = TypeVar("V", Backbone, Dataset, Sampler, Pruner, ExecutorFactory, Metric, Optimizer, Augmentation, ImageReader)


class Kind(NamedTuple):
    """How values of a kind are registered, called in messages, and found by who misspelt a name."""

    hook: str
    word: str
    remedy: str


#: every kind of value that a plugin can register; `{names}` in a remedy stands for all registered names
KINDS: Mapping[type, Kind] = {
    Backbone: Kind("register_backbones", "backbone", "`automl-pt backbones` lists all of them"),
    Dataset: Kind("register_datasets", "dataset", "`automl-pt datasets` lists all of them; a path must exist"),
    Optimizer: Kind("register_optimizers", "optimizer", "there are {names}"),
    Augmentation: Kind("register_augmentations", "augmentation", "there are {names}"),
    Sampler: Kind("register_samplers", "sampler", "--sampler takes one of {names}"),
    Pruner: Kind("register_pruners", "pruner", "--pruner takes one of {names}"),
    ExecutorFactory: Kind("register_executors", "executor", "--engine takes one of {names}"),
    Metric: Kind("register_metrics", "metric", "there are {names}"),
    ImageReader: Kind("register_readers", "reader", "there are {names}"),
}

#: the kinds by the word that a setting uses, see `Registered`
KIND_OF: Mapping[str, type] = {about.word: kind for kind, about in KINDS.items()}


@dataclass(frozen=True)
class Registry(Mapping[str, V], Generic[V]):
    """Values by name. Iteration yields every name, sorted; a catalogue's value is built on access.

    `owners` maps a name or a catalogue's prefix to the plugin that registered it.
    """

    kind: type[V]
    values_by_name: Mapping[str, V] = field(default_factory=dict)
    catalogues: Sequence[Catalogue] = ()
    owners: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> V:
        if name in self.values_by_name:
            return self.values_by_name[name]
        for catalogue in self.catalogues:
            if name.startswith(catalogue.prefix):
                return self._made(catalogue, name)
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        try:
            return isinstance(name, str) and bool(self[name])
        except KeyError:
            return False

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self.values_by_name, *self._listed()}))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def owner(self, name: str) -> str:
        """Return the name of the plugin that registered `name`; raise KeyError when none did."""
        if name in self.owners:
            return self.owners[name]
        for catalogue in self.catalogues:
            if name.startswith(catalogue.prefix):
                return self.owners[catalogue.prefix]
        raise KeyError(name)

    def comparable(self, name: str) -> list[str]:
        """Return the names that an unknown one is compared with: those of catalogues only where no other is similar.

        Listing a catalogue may import its library, which takes seconds.
        """
        is_listed = any(name.startswith(catalogue.prefix) for catalogue in self.catalogues)
        return list(self if is_listed or not similar(name, self.values_by_name) else self.values_by_name)

    def _listed(self) -> Iterator[str]:
        for catalogue in self.catalogues:
            try:
                yield from catalogue.names()
            except (Exception, SystemExit) as error:
                raise self._broken(catalogue, "does not list names", f"{type(error).__name__}: {error}") from error

    def _made(self, catalogue: Catalogue, name: str) -> V:
        try:
            value: object = catalogue.make(name)
        except KeyError:
            raise
        except (Exception, SystemExit) as error:
            raise self._broken(catalogue, "returns no value", f"{name}: {type(error).__name__}: {error}") from error
        if not isinstance(value, self.kind):
            raise self._broken(catalogue, f"does not return {self.kind.__name__} values", f"{name}: {value!r}")
        return value

    def _broken(self, catalogue: Catalogue, rule: str, given: str) -> PluginError:
        return PluginError(
            f"a catalogue {rule}",
            given=f"{self.owners[catalogue.prefix]}: {catalogue.prefix}: {given}",
            remedy="correct the plugin, or remove it",
        )


def collect(
    kind: type[V], returned: Sequence[tuple[str, V | Catalogue]], labels: Mapping[str, str]
) -> tuple[Registry[V], list[tuple[str, PluginError]]]:
    """Build a registry from pairs of plugin and value; `labels` are the plugins' names in messages.

    The first to register a name has it; every later one is returned as a conflict, with its plugin.
    """
    owners: dict[str, str] = {}
    values: dict[str, V] = {}
    catalogues: list[Catalogue] = []
    conflicts: list[tuple[str, PluginError]] = []
    for owner, value in returned:
        name = value.prefix if isinstance(value, Catalogue) else value.name
        taken = _taken(name, owners, catalogues)
        if taken is not None:
            conflicts.append((owner, _conflict(kind, name, labels[owners[taken]], labels[owner])))
            continue
        owners[name] = owner
        if isinstance(value, Catalogue):
            catalogues.append(value)
        else:
            values[name] = value
    return Registry(kind, dict(sorted(values.items())), tuple(catalogues), owners), conflicts


def _conflict(kind: type, name: str, first: str, second: str) -> PluginError:
    return PluginError(
        f"{_a(kind)}'s name is registered once",
        given=f"{name!r} by {first} and by {second}",
        remedy="rename it in one of the two, or uninstall one",
    )


def _a(kind: type) -> str:
    name = kind.__name__.lower()
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _taken(name: str, owners: Mapping[str, str], catalogues: Sequence[Catalogue]) -> str | None:
    """Return what conflicts with `name`: itself, a catalogue's prefix of it, or a name that it is a prefix of."""
    if name in owners:
        return name
    within = [catalogue.prefix for catalogue in catalogues if name.startswith(catalogue.prefix)]
    under = [other for other in owners if name.endswith("/") and other.startswith(name)]
    return next(iter(within + under), None)
