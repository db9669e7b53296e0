"""Networks of strangers: each is refused by name before the first epoch, or all that a model is for works with it."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from tiny import make_info

from automl_pt.backbones.build import build_model
from automl_pt.backbones.random_state import kept_random_state, other_states, seed_all, set_other_states
from automl_pt.cli.predict import command as predict
from automl_pt.core.errors import ExportError, InvalidModelDirectoryError, PluginError
from automl_pt.images.preprocessing import Preprocessing
from automl_pt.layouts.listing import list_images
from automl_pt.model.export import Format, export_model
from automl_pt.model.fit import WRAPPERS
from automl_pt.model.load import load_model, save_model
from automl_pt.model.parity import BOUND, ParityImages
from automl_pt.plugins.manager import Plugins, load_plugins
from automl_pt.runs.run import train
from automl_pt.testing.backbones import check_backbone
from automl_pt.training.memory import bytes_per_image
from automl_pt.training.rehearsal import rehearse

FILE = Path(__file__).parents[1] / "strange_networks.py"
REFUSED = {
    "pair": "does not return logits.*strange/pair: tuple for 1 image and 3 classes, in eval mode",
    "pair-train": "does not return logits.*strange/pair-train: tuple for 3 images and 3 classes, in training mode",
    "wide-train": r"does not return logits.*strange/wide-train: \[3, 6\] for 3 images and 3 classes, in training mode",
    "frozen": "no trainable parameters.*strange/frozen: all 6 parameters have requires_grad=False",
    "empty": "no trainable parameters.*strange/empty: it has no parameters",
    "detached": "do not depend on its parameters.*strange/detached",
    "nan": "not finite, before any training.*strange/nan: 9 of 9 are NaN.*eval mode",
    "nan-train": "not finite, before any training.*strange/nan-train: 9 of 9 are NaN.*training mode",
    "eight": "strange/eight failed in eval mode.*one image of 32 px.*RuntimeError.*any number of images",
    "eight-train": "strange/eight-train failed in training mode.*3 images of 32 px.*RuntimeError",
    "grey": r"strange/grey failed in eval mode.*expected input.*1 channels.*float\[B, 3, S, S\]",
    "integers": r"does not return logits.*strange/integers: int64 \[1, 3\]",
    "extra": r"state that is not a tensor.*strange/extra: 5\._extra_state is dict.*register_buffer",
    "double-raw": "strange/double-raw failed in eval mode.*RuntimeError",
    "exit": "strange/exit failed in eval mode.*SystemExit.*ends the whole program",
    "exit-train": "strange/exit-train failed in training mode.*SystemExit",
    "exit-build": "did not return a model.*strange/exit-build: SystemExit",
    "nothing": r"did not return a torch\.nn\.Module.*strange/nothing: NoneType",
    "key-error": "strange/key-error failed in training mode.*KeyError: 'logits'",
}
TRAINED = ["tied", "twice", "parallel", "parallel-part", "script", "script-part", "extra-tensor", "double", "bfloat16"]
TRAINED += ["copied", "draws", "lazy", "object", "weight-norm", "silent", "in-place"]
#: those whose states are of unusual kinds, so that a broken run is compared with an unbroken one
COMPARED = ("tied", "parallel-part", "script", "extra-tensor", "bfloat16", "draws", "lazy", "weight-norm")
FORMATS: tuple[Format, ...] = ("onnx", "torch-export", "safetensors")
#: those that are exported in every format, which takes seconds; what an exporter does not take is refused by name
EXPORTED = ("tied", "script", "double")
REFUSED_EXPORTS = {("script", "onnx"), ("double", "onnx"), ("script", "torch-export")}


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return load_plugins((str(FILE),))


def settings(name: str, output: Path, plugins: Plugins, **more: Any) -> dict[str, Any]:
    small: dict[str, Any] = {"epochs": 2, "batch_size": 4, "ema_decay": 0.9, "threads": 1, "device": "cpu"}
    return {"backbone": f"strange/{name}", "output": output, "plugins": plugins, "image_size": 32, **small, **more}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trained_is_the_plugins_fault_before_the_first_epoch(
    name: str, tmp_path: Path, tiny_folder: Path, plugins: Plugins
) -> None:
    with pytest.raises(PluginError, match=f"(?s){REFUSED[name]}") as caught:
        list(train(str(tiny_folder), **settings(name, tmp_path / "run", plugins)))
    assert caught.value.exit_code == 1
    assert not (tmp_path / "run" / "history.jsonl").exists()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TRAINED)
def test_what_can_be_trained_resumes_predicts_and_is_exported(
    name: str, tmp_path: Path, tiny_folder: Path, plugins: Plugins
) -> None:
    broken = tmp_path / "broken"
    first = train(str(tiny_folder), **settings(name, broken, plugins))
    next(first)
    first.close()
    seed_all(99)  # what a process draws meanwhile must not matter
    assert [result.epoch for result in train(str(tiny_folder), **settings(name, broken, plugins))] == [2]
    if name in COMPARED:
        assert len(list(train(str(tiny_folder), **settings(name, tmp_path / "whole", plugins)))) == 2
        weights = [sorted(path.name for path in folder.glob("weights-*")) for folder in (tmp_path / "whole", broken)]
        assert weights[0] == weights[1]
    images = ParityImages(list_images([tiny_folder / "val"]).paths[:3], "drawn images")
    for kind in FORMATS if name in EXPORTED else FORMATS[-1:]:
        model = load_model(broken, device="cpu", plugins=plugins)
        assert model.predict(images.sources).shape == (3, 3)
        export(model, tmp_path / "exported", kind, images, refused=(name, kind) in REFUSED_EXPORTS)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "prefix", "wrapper"),
    [("parallel", "", "module."), ("parallel-part", "0.", "module."), ("script-part", "0.", "_orig_mod.")],
)
def test_weights_are_kept_without_a_wrappers_name_and_those_of_earlier_versions_load(
    name: str, prefix: str, wrapper: str, tmp_path: Path, plugins: Plugins
) -> None:
    model = build_model(plugins.backbone(f"strange/{name}"), 3, 32, seed=1)
    state = model.state_dict()
    assert not any(part in WRAPPERS for key in state for part in key.split("."))
    earlier = {key.replace(prefix, prefix + wrapper, 1) if key.startswith(prefix) else key: state[key] for key in state}
    assert earlier.keys() != state.keys()
    info = replace(make_info(), backbone=f"strange/{name}", preprocessing=Preprocessing(32, (0.5,) * 3, (0.25,) * 3))
    save_model(tmp_path / "model", earlier, info)
    loaded = load_model(tmp_path / "model", plugins=plugins, device="cpu").network.state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state)
    save_model(tmp_path / "model", {**earlier, "more": torch.ones(3)}, info)
    with pytest.raises(InvalidModelDirectoryError, match="more is not in the network"):
        load_model(tmp_path / "model", plugins=plugins)


def export(model: Any, path: Path, kind: Format, images: ParityImages, *, refused: bool) -> None:
    if not refused:
        assert export_model(model, path, kind, images).largest_difference <= BOUND
        return
    with pytest.raises(ExportError, match=rf"(?s)cannot be exported as {kind}.*strange/") as caught:
        export_model(model, path, kind, images)
    assert "\x1b" not in str(caught.value)


def test_a_network_that_was_returned_before_is_refused(tmp_path: Path, tiny_folder: Path, plugins: Plugins) -> None:
    list(train(str(tiny_folder), **settings("kept", tmp_path / "first", plugins)))
    with pytest.raises(PluginError, match="(?s)returned before.*strange/kept.*copy.deepcopy"):
        list(train(str(tiny_folder), **settings("kept", tmp_path / "second", plugins)))
    # a whole directory is not called damaged for it
    with pytest.raises(PluginError, match="returned before"):
        load_model(tmp_path / "first", plugins=plugins)


def test_numbers_drawn_from_numpy_and_random_follow_the_seed(
    tmp_path: Path, tiny_folder: Path, plugins: Plugins
) -> None:
    def losses(output: str, seed: int) -> list[float]:
        found = train(str(tiny_folder), **settings("draws", tmp_path / output, plugins, seed=seed))
        return [result.train_loss for result in found]

    first = losses("a", 1)
    seed_all(7)
    assert losses("b", 1) == first
    assert losses("c", 2) != first


def test_random_states_are_kept_to_the_last_bit() -> None:
    import random

    import numpy as np

    def draw() -> list[float]:
        return [np.random.randn(), random.gauss(0, 1), random.random(), np.random.rand(), torch.rand(()).item()]

    seed_all(3)
    draw()  # now a second normal number waits in both
    state, rest = other_states(), torch.get_rng_state()
    with kept_random_state():
        drawn = draw()
    assert draw() == drawn
    seed_all(4)
    set_other_states(state[0])
    torch.set_rng_state(rest)
    assert draw() == drawn


def test_a_rehearsal_leaves_no_trace(plugins: Plugins) -> None:
    model = build_model(plugins.backbone("strange/draws"), 2, 32, seed=1)
    before, state, rest = [t.clone() for t in model.state_dict().values()], torch.get_rng_state(), other_states()
    place: dict[str, Any] = {"device": torch.device("cpu"), "precision": "fp32", "channels_last": True}
    rehearse(model, "strange/draws", 2, 32, **place)
    assert all(map(torch.equal, model.state_dict().values(), before))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(other_states(), rest)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training


def parameters_alive() -> int:
    gc.collect()
    return sum(type(thing) is torch.nn.Parameter for thing in gc.get_objects())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["resnet18", "densenet121", "strange/weight-norm"])
def test_nothing_of_a_network_stays_once_its_memory_was_counted(name: str, plugins: Plugins) -> None:
    before, backbone = parameters_alive(), plugins.backbone(name)
    size = 32 if backbone.min_image_size is not None else backbone.image_size
    model = build_model(backbone, 2, size, seed=1)
    assert bytes_per_image(model, torch.zeros(2, 3, size, size)) > 0
    del model
    assert parameters_alive() == before


def test_nothing_of_a_training_stays(tmp_path: Path, tiny_folder: Path, plugins: Plugins) -> None:
    before = parameters_alive()
    for number in range(3):
        list(train(str(tiny_folder), **settings("tied", tmp_path / str(number), plugins)))
        assert parameters_alive() == before


KIT = ["pair-train", "wide-train", "frozen", "detached", "nan", "eight", "grey", "extra", "exit-train", "kept"]


@pytest.mark.parametrize("name", KIT)
def test_the_contract_kit_tells_the_author_first(name: str, plugins: Plugins) -> None:
    with pytest.raises(PluginError) as caught:
        check_backbone(plugins.backbone(f"strange/{name}"))
    assert caught.value.given


def test_a_network_that_fails_in_predict_is_named(tmp_path: Path, tiny_folder: Path) -> None:
    text = (
        "from torch import nn\nfrom automl_pt import Backbone, hookimpl\n"
        "class Net(nn.Sequential):\n"
        "    def forward(self, images):\n"
        "        if len(images) == FAILS: raise KeyError('boom')\n"
        "        return super().forward(images)\n"
        "def build(num_classes, pretrained):\n"
        "    return Net(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))\n"
        "@hookimpl\n"
        "def register_backbones(): return [Backbone('strange/late', build, image_size=32)]\n"
    )
    (tmp_path / "late.py").write_text(text.replace("FAILS", "-1"))
    plugins = load_plugins((str(tmp_path / "late.py"),))
    list(train(str(tiny_folder), **settings("late", tmp_path / "run", plugins, epochs=1)))
    (tmp_path / "late.py").write_text(text.replace("FAILS", "2"))
    images = [str(path) for path in list_images([tiny_folder / "val"]).paths[:2]]
    result = CliRunner().invoke(predict, [str(tmp_path / "run"), *images, "--plugin", str(tmp_path / "late.py")])
    assert isinstance(result.exception, PluginError)
    assert "the network of strange/late failed" in str(result.exception)
