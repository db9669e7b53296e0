"""Everything built in keeps the contract that is shipped to others."""

from __future__ import annotations

import pytest

from automl_pt.builtin.torchvision_backbones import DENSENETS, RESNETS
from automl_pt.builtin.validation_metrics import METRICS
from automl_pt.plugins.manager import load_plugins
from automl_pt.testing import check_backbone, check_dataset, check_metric

#: quick enough for every run of the tests
QUICK = ("resnet18", "densenet121")
NAMES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in (*RESNETS, *DENSENETS)]


@pytest.mark.parametrize("name", NAMES)
def test_torchvision_backbones(name):
    check_backbone(load_plugins().backbone(name), sizes=(16,))


@pytest.mark.parametrize("name", ["timm/test_resnet", "timm/test_vit", "timm/test_efficientnet", "timm/test_convnext"])
def test_timm_backbones(name):
    check_backbone(load_plugins().backbone(name))


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_metrics(metric):
    check_metric(metric)


def test_digits():
    check_dataset("digits")
