"""Refuses names and paths that lead to nothing before PyTorch is imported, which takes seconds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from automl_pt.config import AUTO, SearchConfig, TrainConfig
from automl_pt.core.errors import CheckpointError
from automl_pt.core.files import is_there, not_found
from automl_pt.core.text import printable

if TYPE_CHECKING:
    from automl_pt.plugins.manager import Plugins


def load_known(settings: TrainConfig | SearchConfig, output: Path | None = None) -> Plugins:
    """Load the plugins; refuse a dataset, backbone, file of weights or registered name in the settings that is unknown.

    Raises what the command itself would raise for it later.
    """
    from automl_pt.data.find import require_path
    from automl_pt.plugins.manager import load_plugins
    from automl_pt.runs.published import require_names
    from automl_pt.runs.tracking import Trackers

    require_path(settings.dataset)
    plugins = load_plugins(settings.plugins)
    require_dataset(settings.dataset, plugins)
    for name in settings.backbones if isinstance(settings, SearchConfig) else (settings.backbone,):
        if name != AUTO and name not in plugins.backbones() and not _is_recorded(name, output):
            plugins.backbone(name)
    if settings.weights is not None and not Path(settings.weights).is_dir():
        from automl_pt.backbones.weights import require_weights

        require_weights(Path(settings.weights))
    plugins.objective(settings.objective)
    Trackers(plugins, settings.trackers)
    require_names(settings, plugins)
    if isinstance(settings, SearchConfig):
        _require_for_search(settings, plugins)
    return plugins


def _require_for_search(settings: SearchConfig, plugins: Plugins) -> None:
    from automl_pt.plugins.executors import ExecutorFactory
    from automl_pt.plugins.pruners import Pruner
    from automl_pt.plugins.samplers import Sampler
    from automl_pt.reporting.study import find_study

    plugins.named(Sampler, settings.sampler)
    plugins.named(Pruner, settings.pruner)
    if settings.engine is not None:
        plugins.named(ExecutorFactory, settings.engine)
    if settings.warm_start is not None:
        find_study(settings.warm_start)


def _is_recorded(backbone: str, output: Path | None) -> bool:
    """Say whether a run or study here was made with a backbone: it names the plugin that is missing now."""
    records = [*Path("studies").glob("*/study.json"), *Path("runs").glob("*/run.json")]
    records += [] if output is None else [output / "run.json"]
    return any(json.dumps(backbone) in record.read_text(errors="replace") for record in records if record.is_file())


def load_for_model(files: Sequence[str], *models: Path) -> Plugins:
    """Load the plugins; raise InvalidModelDirectoryError for a path without a model, or with a damaged description."""
    from automl_pt.model.directory import read_info, require_model
    from automl_pt.plugins.manager import load_plugins

    for path in models:
        read_info(require_model(path))
    return load_plugins(files)


def require_run(path: Path) -> None:
    """Raise CheckpointError if there is nothing at the path of a run."""
    if not is_there(path):
        remedy = "give a run directory of `automl-pt train`"
        raise CheckpointError(not_found(path), given=printable(path), remedy=remedy)


def require_dataset(dataset: str, plugins: Plugins) -> None:
    """Raise UnknownNameError or InvalidDatasetError if there is neither a dataset of this name nor such a path."""
    from automl_pt.data.find import hints_of

    hints_of(dataset, plugins)
