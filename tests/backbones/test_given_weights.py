"""Weights as people have them: which wrappers and prefixes are taken off, and what is said of it."""

from __future__ import annotations

import re
from argparse import Namespace
from pathlib import Path

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from tiny import load_tiny, make_model, make_state
from torch import nn

from automl_pt.backbone import Backbone
from automl_pt.backbones.build import build_model
from automl_pt.backbones.weight_readings import GivenWeights
from automl_pt.builtin.timm_weights import timm_names
from automl_pt.core.errors import InvalidModelDirectoryError, WeightsError
from automl_pt.model.load import given_weights


class Net(nn.Module):
    """A body of two modules, and a head."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem, self.layer = nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.layer(self.stem(images)).mean((2, 3)))
        return logits


NET = Backbone("net", lambda classes, pretrained: Net(classes), image_size=8, head="head")


def state(classes: int = 7) -> dict[str, torch.Tensor]:
    torch.manual_seed(classes)
    return dict(Net(classes).state_dict())


def prefixed(prefix: str, tensors: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in (tensors or state()).items()}


def headless() -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in state().items() if not name.startswith("head")}


def loaded(content: object, folder: Path, classes: int = 3) -> tuple[nn.Module, list[str]]:
    """Save `content` as a training program does, start from it, and return the model and what was said."""
    torch.save(content, folder / "w.pth")
    said: list[str] = []
    model = build_model(NET, classes, 8, weights=folder / "w.pth", seed=1, tell=said.append)
    return model, [text.removeprefix(f"weights of {folder / 'w.pth'}: ") for text in said]


NEW_HEAD = "the head is new: head.weight is [7, 4], not [3, 4] and 1 more"
LIGHTNING = {
    **{"epoch": 3, "global_step": 9, "pytorch-lightning_version": "2.6", "loops": {"fit_loop": {"state_dict": {}}}},
    **{"state_dict": {**prefixed("model."), "loss.weight": torch.ones(7)}, "hyper_parameters": {"lr": 0.1}},
    **{"optimizer_states": [{"state": {0: {"momentum_buffer": torch.ones(2)}}}], "callbacks": {}},
}
TIMM = {
    **{"epoch": 3, "arch": "net", "args": Namespace(lr=0.1), "optimizer": {"state": {}, "param_groups": []}},
    **{"state_dict": {name: tensor * 0 for name, tensor in state().items()}, "state_dict_ema": state(), "metric": 0.5},
}
CASES = {
    "plain": (state(), [NEW_HEAD]),
    "DataParallel": (prefixed("module."), ["the prefix 'module.' is removed from 9 names", NEW_HEAD]),
    "torch.compile": (
        prefixed("_orig_mod."),
        ["a wrapper's name such as _orig_mod. is removed from 9 names", NEW_HEAD],
    ),
    "compiled in DataParallel": (
        {"model": prefixed("module._orig_mod."), "epoch": 1},
        [
            "the entry 'model' is read",
            "other entries not used, 1: epoch",
            "a wrapper's name such as _orig_mod. is removed from 9 names",
            "the prefix 'module.' is removed from 9 names",
            NEW_HEAD,
        ],
    ),
    "a compiled part": (
        {name.replace("layer.", "layer._orig_mod."): tensor for name, tensor in state().items()},
        ["a wrapper's name such as _orig_mod. is removed from 5 names", NEW_HEAD],
    ),
    "Lightning": (
        LIGHTNING,
        [
            "the entry 'state_dict' is read",
            "other entries not used, 7: epoch, global_step, pytorch-lightning_version, loops, "
            "hyper_parameters and 2 more",
            "the prefix 'model.' is removed from 9 names",
            "tensors without that prefix not used, 1: loss.weight",
            NEW_HEAD,
        ],
    ),
    "timm": (
        TIMM,
        [
            "the entry 'state_dict_ema' is read",
            "other entries not used, 6: epoch, arch, args, optimizer, state_dict and 1 more",
            NEW_HEAD,
        ],
    ),
    "a moving average of PyTorch": (
        {"n_averaged": torch.tensor(3), **prefixed("module.")},
        [
            "the prefix 'module.' is removed from 9 names",
            "tensors without that prefix not used, 1: n_averaged",
            NEW_HEAD,
        ],
    ),
    "MoCo": (
        {
            "state_dict": {
                **prefixed("module.encoder_q."),
                **prefixed("module.encoder_k."),
                "module.queue": torch.ones(2),
            }
        },
        [
            "the entry 'state_dict' is read",
            "the prefix 'module.encoder_q.' is removed from 9 names",
            "tensors without that prefix not used, 10: module.encoder_k.stem.weight, module.encoder_k.stem.bias, "
            "module.encoder_k.layer.0.weight, module.encoder_k.layer.0.bias, module.encoder_k.layer.0.running_mean "
            "and 5 more",
            NEW_HEAD,
        ],
    ),
    "a body and a head of its own": (
        {**prefixed("backbone.", headless()), "classifier.weight": torch.ones(9, 4)},
        [
            "the prefix 'backbone.' is removed from 7 names",
            "tensors without that prefix not used, 1: classifier.weight",
            "the head is new: the file has none for it",
        ],
    ),
    "an entry of any name in another": (
        {"checkpoint": {"weights of mine": state(), "when": "today"}},
        ["the entry 'checkpoint.weights of mine' is read", "other entries not used, 1: when", NEW_HEAD],
    ),
    "values beside the tensors": ({**state(), "epoch": 3}, ["other entries not used, 1: epoch", NEW_HEAD]),
    "a head of the same width": (state(3), ["the head is loaded too, because it has the same number of classes"]),
}


@pytest.mark.parametrize("name", CASES)
def test_wrappers_and_prefixes_are_taken_off_and_said(name, tmp_path):
    content, said = CASES[name]
    model, told = loaded(content, tmp_path)
    assert told == said
    source = state(3) if "same width" in name else state()
    assert all(torch.equal(model.state_dict()[key], source[key]) for key in headless())


@given(st.lists(st.sampled_from(["module.", "model.", "net.", "encoder.", "_orig_mod.", "a.b."]), max_size=3))
@settings(max_examples=30, deadline=None)
def test_any_row_of_prefixes_is_taken_off(parts):
    given = GivenWeights(Path("w"), {"state_dict": prefixed("".join(parts))})
    model = build_model(NET, 3, 8, weights=given, seed=1)
    assert all(torch.equal(model.state_dict()[key], state()[key]) for key in headless())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"epoch": 1, "state_dict": prefixed("module.", {**state(), "stem.weight": torch.zeros(4, 3, 5, 5)})},
            r"do not fit net.*w\.pth, read as the entry 'state_dict' with the prefix 'module\.' removed, for net: "
            r"stem\.weight is \[4, 3, 5, 5\], the network's is \[4, 3, 3, 3\]\n",
        ),
        ({"a": torch.zeros(1)}, r"for net: a is not in the network; layer\.0\.bias is missing"),
        ({"epoch": 1, "names": ["x"]}, r"holds no tensors by name.*its entries are epoch, names"),
        ({"a\x1b[31m": torch.zeros(1)}, r"a\\x1b\[31m is not in the network"),
    ],
)
def test_what_does_not_fit_names_the_nearest_reading(content, message, tmp_path):
    with pytest.raises(WeightsError, match=f"(?s){message}"):
        loaded(content, tmp_path)


def old_names(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the model's tensors as EfficientNet-PyTorch names them, in their own order."""
    kept = {"conv_pw": "_expand_conv", "conv_dw": "_depthwise_conv", "conv_pwl": "_project_conv"}
    outside = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    renamed, numbers = {}, {}
    for name, tensor in model.state_dict().items():
        if found := re.fullmatch(r"(blocks\.\d+\.\d+)\.(.+)\.(\w+)", name):
            number = numbers.setdefault(found[1], len(numbers))
            separable = not hasattr(model.get_submodule(found[1]), "conv_pwl")
            module = found[2].replace("se.conv_reduce", "_se_reduce").replace("se.conv_expand", "_se_expand")
            module = {"bn1": "_bn1", "bn2": "_bn2"}.get(module, module) if separable else module
            module = {"bn1": "_bn0", "bn2": "_bn1", "bn3": "_bn2"}.get(module, module)
            module = "_project_conv" if separable and module == "conv_pw" else kept.get(module, module)
            renamed[f"_blocks.{number}.{module}.{found[3]}"] = tensor
        else:
            module, _, what = name.rpartition(".")
            renamed[f"{outside[module]}.{what}"] = tensor
    return renamed


@pytest.mark.parametrize("name", ["tf_efficientnet_b0", "tf_efficientnet_lite1"])
def test_names_of_efficientnet_pytorch_are_timms(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    old = old_names(model)
    # by name and in their order, so that none is mapped to a neighbour of the same shape
    assert [(key, value.shape) for key, value in timm_names(model, old).items()] == [
        (key, value.shape) for key, value in model.state_dict().items()
    ]
    assert timm_names(model, model.state_dict()).keys() == model.state_dict().keys()
    assert timm_names(model, {**old, "_blocks.99._bn1.weight": old["_fc.bias"]}).keys() >= {"_blocks.99._bn1.weight"}


def test_a_model_directory_is_an_untrained_input(tmp_path):
    plugins = load_tiny(tmp_path)
    make_model(tmp_path / "study" / "model", plugins)
    said: list[str] = []
    given = given_weights(tmp_path / "study")
    model = build_model(plugins.backbone("tiny"), 5, 8, weights=given, seed=1, tell=said.append)
    assert torch.equal(model.state_dict()["0.weight"], make_state(plugins)["0.weight"])
    assert said == [
        f"weights of {tmp_path / 'study' / 'model'}: the head is new: 4.weight is [3, 144], not [5, 144] and 1 more"
    ]
    with pytest.raises(WeightsError, match=r"(?s)do not fit net.*the model was trained as tiny: `--backbone tiny`"):
        build_model(NET, 5, 8, weights=given, seed=1)


def test_a_folder_that_is_no_model_directory(tmp_path):
    with pytest.raises(
        InvalidModelDirectoryError, match=r"(?s)not a model directory.*has no model\.json.*give a model"
    ):
        given_weights(tmp_path)
    save_file(state(), tmp_path / "model.safetensors")
    with pytest.raises(
        InvalidModelDirectoryError, match=r"(?s)but model\.safetensors.*give the file itself: .*safeten"
    ):
        given_weights(tmp_path)
