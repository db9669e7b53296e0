"""AutoML-lite for image classification: search learning rate and batch size, leave one finished model.

Importing the package imports no torch; `train`, `search` and `load_model` are found on first use.
"""

from __future__ import annotations

from automl_pt.core.safe_path import leave_out_working_folder

leave_out_working_folder()  # before the imports below, which it could answer with files of its own

from importlib import import_module
from typing import TYPE_CHECKING, Any

from automl_pt.backbone import Backbone, PublishedWeights
from automl_pt.dataset import Dataset, Hints, LabeledImages, LazyImages
from automl_pt.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from automl_pt.api.search import search
    from automl_pt.model.load import load_model
    from automl_pt.runs.run import train

__version__ = "0.1.0"
__all__ = [
    "Backbone",
    "Dataset",
    "Hints",
    "LabeledImages",
    "LazyImages",
    "PublishedWeights",
    "hookimpl",
    "load_model",
    "search",
    "train",
]

_LAZY = {"load_model": "automl_pt.model.load", "search": "automl_pt.api.search", "train": "automl_pt.runs.run"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    # completion in a shell or notebook asks here; it must not import torch
    return sorted({*globals(), *__all__})
