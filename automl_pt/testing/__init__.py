"""The contract of plugins as checks for their authors' tests, one line each.

    from automl_pt.testing import check_backbone, check_dataset, check_tracker

    def test_contract():
        check_backbone("acme/tiny")

A name is looked up as on the command line, so that the entry point is tested too. Every failure is a PluginError
that states the rule, the result, and where to look.
"""

from automl_pt.testing.backbones import check_backbone
from automl_pt.testing.datasets import check_dataset
from automl_pt.testing.trackers import check_tracker

__all__ = ["check_backbone", "check_dataset", "check_tracker"]
