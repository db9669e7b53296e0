"""AutoML-lite for image classification: search learning rate and batch size, and get one finished model.

Importing the package imports no torch; `train`, `search` and `load_model` are imported on first use.
"""

from __future__ import annotations

from automl_pt.core.safe_path import leave_out_working_folder

leave_out_working_folder()  # before the imports below, which files in the working folder could replace

from importlib import import_module
from typing import TYPE_CHECKING, Any

from automl_pt.backbone import Backbone, PublishedWeights
from automl_pt.core import __version__ as __version__
from automl_pt.dataset import Dataset, Hints, LabeledImages, LazyImages
from automl_pt.plugins.augmentations import Augmentation
from automl_pt.plugins.executors import ExecutorFactory
from automl_pt.plugins.hookspecs import hookimpl
from automl_pt.plugins.metrics import Metric, Predictions
from automl_pt.plugins.optimizers import Optimizer
from automl_pt.plugins.pruners import Pruner
from automl_pt.plugins.readers import ImageHeader, ImageReader
from automl_pt.plugins.samplers import Sampler

if TYPE_CHECKING:
    from automl_pt.interactive.signatures import search, train
    from automl_pt.model.load import Model, load_model
    from automl_pt.reporting.study import StudyReport, read_study
    from automl_pt.study.pruning.base import PruningRule
    from automl_pt.study.records import StudyResult
    from automl_pt.training.result import EpochResult


__all__ = [
    "Augmentation",
    "Backbone",
    "Dataset",
    "EpochResult",
    "ExecutorFactory",
    "Hints",
    "ImageHeader",
    "ImageReader",
    "LabeledImages",
    "LazyImages",
    "Metric",
    "Model",
    "Predictions",
    "Pruner",
    "PruningRule",
    "Optimizer",
    "PublishedWeights",
    "Sampler",
    "StudyReport",
    "StudyResult",
    "hookimpl",
    "load_model",
    "read_study",
    "search",
    "train",
]

_LAZY = {
    **dict.fromkeys(("search", "train"), "automl_pt.interactive.signatures"),
    **dict.fromkeys(("Model", "load_model"), "automl_pt.model.load"),
    **dict.fromkeys(("StudyReport", "read_study"), "automl_pt.reporting.study"),
    "EpochResult": "automl_pt.training.result",
    "PruningRule": "automl_pt.study.pruning.base",
    "StudyResult": "automl_pt.study.records",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    # called for completion in a shell or notebook, so it must not import torch; without what this file imports
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
