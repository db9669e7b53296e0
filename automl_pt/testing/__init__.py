"""The contract of plugins as checks for their authors' tests, one line each.

    from automl_pt.testing import (
        check_augmentation, check_backbone, check_dataset, check_optimizer, check_tracker
    )

    def test_contract():
        check_backbone("acme/tiny")

A name is looked up as on the command line, so that the entry point is tested too. Every failure is a PluginError
that states the rule, the result, and where to look.
"""

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

__all__ = [
    "check_augmentation",
    "check_backbone",
    "check_dataset",
    "check_executor",
    "check_metric",
    "check_optimizer",
    "check_pruner",
    "check_reader",
    "check_sampler",
    "check_tracker",
]
