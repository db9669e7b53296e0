"""Everything built in keeps the contract that is shipped to others."""

from __future__ import annotations

import random

import pytest

from automl_pt.builtin.torchvision_backbones import DENSENETS, RESNETS
from automl_pt.plugins import load_plugins
from automl_pt.testing import check_backbone, check_dataset

#: quick enough for every run of the tests
QUICK = ("resnet18", "densenet121")
NAMES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in (*RESNETS, *DENSENETS)]


def timm_sample(count: int) -> list[str]:
    """Draw models of timm, small ones made for tests among them: one per family, seeded."""
    names = [name for name in load_plugins().backbones() if name.startswith("timm/") and "." not in name]
    families = sorted({name.partition("_")[0] for name in names})
    chosen = random.Random(1).sample(families, count)
    return [random.Random(1).choice([n for n in names if n.partition("_")[0] == family]) for family in chosen]


@pytest.mark.parametrize("name", NAMES)
def test_torchvision_backbones(name):
    check_backbone(load_plugins().backbone(name), sizes=(16,))


@pytest.mark.parametrize("name", ["timm/test_resnet", "timm/test_vit", "timm/test_efficientnet", "timm/test_convnext"])
def test_timm_backbones(name):
    check_backbone(load_plugins().backbone(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", timm_sample(60))
def test_a_sample_of_timm(name):
    check_backbone(load_plugins().backbone(name), sizes=(load_plugins().backbone(name).image_size,))


def test_digits():
    check_dataset("digits")
