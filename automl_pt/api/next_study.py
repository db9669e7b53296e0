"""Decides which study a search opens: the one of its name, or a new one that starts from it, once images were added.

The studies of one name are `NAME`, `NAME-2`, `NAME-3` and so on. Each was started from an earlier one, which is only
read. A search that gives a name opens exactly the study of that name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from automl_pt.config import SearchConfig, as_made, make
from automl_pt.core.errors import ConfigError, StudyError
from automl_pt.core.files import cache_folder
from automl_pt.core.text import counted, printable, shown_path
from automl_pt.data.find import find
from automl_pt.data.inventory import Inventory, added, changes
from automl_pt.data.manifest import Manifest
from automl_pt.dataset import SPLITS
from automl_pt.model.directory import read_info
from automl_pt.plugins.manager import Plugins, load_plugins
from automl_pt.plugins.optimizers import PUBLISHED
from automl_pt.reporting.study import STUDIES, find_study, is_in_use
from automl_pt.runs.directory import USERS_OWN
from automl_pt.study.resume import FREE
from automl_pt.study.store.study_files import read_object

#: settings that a new study takes from the earlier one where the user gives none; the folder `root` may be elsewhere
CARRIED = (*sorted(SearchConfig.model_fields.keys() - FREE), "lr", "batch_sizes", "backbones", "search")
#: these state where the weights come from, and the range of learning rates suits them: given ones replace all
STARTS = ("pretrained", "weights", "lr")
#: what `stopped` says of a search that came to its end
ENDS = ("trials", "timeout", "flat")


@dataclass(frozen=True)
class NextStudy:
    """The study that a search opens: its settings and folder, and a note that says what it takes from another one."""

    config: SearchConfig
    directory: Path
    notes: tuple[str, ...] = ()


def next_study(config: SearchConfig, name: str, plugins: Plugins | None = None) -> NextStudy:
    """Return the study of this name to open: the newest of its line, or a new one that starts from it.

    A new one starts from the newest where that has ended and images were added since, or from the one that
    `warm_start` names. Raises UnknownNameError if there is no such study, StudyError for one without settings.
    """
    base, why = STUDIES / name, ""
    line = [base] if config.name is not None else _line(base)
    if config.warm_start is not None:
        earlier: Path | None = find_study(config.warm_start)
        there = (folder for folder in reversed(line) if _is_from(folder, earlier, config))
        directory = next(there, _free(base) if config.name is None else base)
    else:
        directory, earlier = line[-1], _started_from(line[-1])
        why = _change(config, directory, plugins) if config.name is None else ""
        if why:
            directory, earlier = _free(base), directory
    if earlier is not None:
        return _warm(config, directory, earlier, why)
    if config.warm_weights:
        raise ConfigError(["warm_weights: there is no earlier study to start from; name one by warm_start"])
    return NextStudy(config, directory)


def _warm(config: SearchConfig, directory: Path, earlier: Path, why: str) -> NextStudy:
    """Add the settings of the study that was started from `earlier`, or of `earlier` itself for a new one."""
    exists = (directory / "study.json").exists()
    if exists and not _is_from(directory, earlier, config):
        raise StudyError(
            "this study exists, and was not started so",
            given=f"{printable(directory)}: started from {printable(_started_from(directory) or 'no other study')}",
            remedy="leave out --warm-start and --warm-weights, or give another --name to start a new study",
        )
    source = directory if exists else earlier
    found = _carried(source)
    kept = {name: value for name, value in found.items() if name not in config.model_fields_set}
    if not exists and (config.warm_weights or config.model_fields_set & {"pretrained", "weights"}):
        kept = {name: value for name, value in kept.items() if name not in STARTS}
    own: dict[str, Any] = {"warm_start": str(earlier)}
    if exists:
        own["warm_weights"] = bool(read_object(directory / "study.json")["asked"].get("warm_weights", False))
    elif config.warm_weights:
        own |= _weights(config, earlier)
    settled = make(SearchConfig, {**kept, **config.model_dump(exclude_unset=True), **own}, source=str(source))
    return NextStudy(settled, directory, () if exists else (_said(settled, earlier, directory, why, kept),))


def _line(base: Path) -> list[Path]:
    """Return the studies of one name, oldest first; those of other origin with a similar name are none of them."""
    numbered = []
    for folder in base.parent.glob(f"{base.name}-*") if base.parent.is_dir() else ():
        number = re.fullmatch(r"-([2-9]|[1-9][0-9]{1,8})", folder.name[len(base.name) :])
        if number and _started_from(folder) is not None:
            numbered.append((int(number[1]), folder))
    return [base, *(folder for _, folder in sorted(numbered))]


def _free(base: Path) -> Path:
    """Return the first folder of the line that holds no study; one that was left before its study began is taken."""
    if not _holds_study(base):
        return base
    numbered = (base.with_name(f"{base.name}-{number}") for number in count(2))
    return next(folder for folder in numbered if not _holds_study(folder))


def _holds_study(folder: Path) -> bool:
    return (folder / "study.json").exists() or (folder / "study.toml").exists()


def _started_from(directory: Path) -> Path | None:
    found = read_object(directory / "study.json").get("asked")
    earlier = found.get("warm_start") if isinstance(found, dict) else None
    return Path(earlier) if isinstance(earlier, str) else None


def _is_from(directory: Path, earlier: Path | None, config: SearchConfig) -> bool:
    """Return whether the study in `directory` was started from `earlier`, and if asked from its weights."""
    asked = read_object(directory / "study.json").get("asked")
    with_weights = isinstance(asked, dict) and bool(asked.get("warm_weights", False))
    return _started_from(directory) == earlier and (with_weights or not config.warm_weights)


def _carried(directory: Path) -> dict[str, Any]:
    """Return the settings of the study in `directory` that are not the default; its file is untrusted."""
    path = directory / "study.json"
    kept = read_object(path)
    asked, given = kept.get("asked"), kept.get("given", [])
    if not isinstance(asked, dict) or not isinstance(given, list):
        raise StudyError(
            "the earlier study has no record of its settings",
            given=printable(directory),
            remedy="search it with this version first, or start a study without --warm-start",
        )
    found = as_made(asked)
    not_given = {*PUBLISHED} - {*given, "lr"}  # the optimiser publishes these, and it may be another one now
    return {
        name: found[name]
        for name in CARRIED
        if name in found and name not in {*USERS_OWN, *not_given} and not _is_default(name, found[name])
    }


def _is_default(name: str, value: Any) -> bool:
    field = SearchConfig.model_fields[name]
    default = list(field.default) if isinstance(field.default, tuple) else field.default
    return bool(value == default)


def _weights(config: SearchConfig, earlier: Path) -> dict[str, Any]:
    """Return the settings that start from the earlier study's model, which fit its own backbone alone."""
    model = earlier / "model"
    backbone = read_info(model)[0].backbone
    asked = config.backbones if "backbones" in config.model_fields_set else (backbone,)
    if asked != (backbone,):
        rule = f"warm_weights: the earlier study's model is a {printable(backbone)}; give this backbone, or none"
        raise ConfigError([f"{rule}, got {printable(', '.join(asked))}"])
    return {"weights": str(model), "backbones": asked}


def _change(config: SearchConfig, directory: Path, plugins: Plugins | None) -> str:
    """Say which images were added since the study in `directory` has ended; nothing if it has not, or none were.

    Without added images, or with none of the earlier ones, opening the study says what is wrong.
    """
    stopped = read_object(directory / "result.json").get("stopped")
    asked = read_object(directory / "study.json").get("asked")
    if stopped not in ENDS or not isinstance(asked, dict) or not (directory / "manifest.json").exists():
        return ""
    plugins = plugins or load_plugins(config.plugins)
    same = os.path.abspath(str(asked.get("dataset"))) == os.path.abspath(config.dataset)
    if not same or config.dataset in plugins.datasets() or is_in_use(directory):
        return ""
    manifest = Manifest.load(directory / "manifest.json")
    layout = {name: value for name, value in _carried(directory).items() if name not in config.model_fields_set}
    images, _ = find(**config.model_copy(update=layout).data_source, plugins=plugins)
    inventory = Inventory(images, Path(config.cache_dir) if config.cache_dir else cache_folder())
    found = changes(manifest, inventory, SPLITS)
    new = added(manifest, inventory)
    if not new or len(found["vanished"]) == len(manifest.entries):
        return ""
    parts = [f"{counted(len(new), 'image')} {'was' if len(new) == 1 else 'were'} added"]
    parts += [f"{len(names)} {kind}" for kind, names in found.items() if names]
    return ", ".join(parts)


def _said(config: SearchConfig, earlier: Path, directory: Path, why: str, kept: Mapping[str, Any]) -> str:
    """Say in one line what a new study takes from the earlier one, and how to open that."""
    settings = ", ".join(_shown(key, kept[key]) for key in CARRIED if key in kept)
    name = shown_path(earlier)
    name = name.removeprefix(f"{STUDIES}{os.sep}")
    opens = f"; --name {name} opens {name} itself" if why and Path(earlier).parent == STUDIES else ""
    return (
        f"new study {printable(directory.name)}, from {name}{f' ({why} since)' if why else ''}: it keeps that study's "
        f"split of the images and {f'its settings ({printable(settings)})' if settings else 'its settings'}, tries its "
        f"best ones early{', starts from its weights' if config.warm_weights else ''}, and is compared with its model"
        f"{opens}"
    )


def _shown(name: str, value: Any) -> str:
    if name == "pretrained":
        return "pretrained weights" if value else "random weights"
    title = {"backbones": "backbone", "lr": "learning rate"}.get(name, name.replace("_", " "))
    items = value if isinstance(value, list | tuple) else [value]
    text = (":" if name == "lr" else ", ").join(f"{one:g}" if isinstance(one, float) else str(one) for one in items)
    return f"{title} {text}"
