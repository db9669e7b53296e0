"""Finished models: loaded without trust, and computing what validation computed."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save
from tiny import make_info, make_model, make_state

from automl_pt.backbones.build import build_model
from automl_pt.core.errors import InvalidDatasetError, InvalidModelDirectoryError
from automl_pt.images.preprocessing import Preprocessing
from automl_pt.model.card import card, loading_lines
from automl_pt.model.directory import WeightsFile, _commit
from automl_pt.model.load import find_model, load_model, save_model
from automl_pt.plugins.manager import Plugins, load_plugins
from automl_pt.training.layout import arrange


def images(count: int, side: int = 12) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    return list(np.random.default_rng(1).integers(0, 256, (count, side, side + 3, 3), dtype=np.uint8))


def commit_bytes(directory: Path, content: bytes, **changes: Any) -> Path:
    """Write a directory whose hashes fit, whatever the weights file holds."""
    digest = hashlib.sha256(content).hexdigest()
    weights = WeightsFile(f"weights-{digest[:12]}.safetensors", digest, len(content))
    _commit(directory, content, make_info(**changes), weights)
    return directory


def test_a_loaded_model_computes_what_the_network_does(tmp_path: Path, plugins: Plugins) -> None:
    model = load_model(make_model(tmp_path, plugins), device="cpu", plugins=plugins)
    # in the layout that runs have: in another one some CPUs add the same products in another order
    network = arrange(build_model(plugins.backbone("tiny"), 3, 8, seed=1), torch.device("cpu"), "fp32").eval()
    pixels = model.info.preprocessing.normalise(torch.from_numpy(model.pixels(images(5))))
    wanted = network(pixels.to(memory_format=torch.channels_last)).detach()
    assert np.array_equal(model.logits(images(5)), wanted.numpy())
    assert np.allclose(model.predict(images(5), batch_size=2), torch.softmax(wanted, 1), atol=1e-6)
    assert model.predict([]).shape == (0, 3)
    assert model.classes == ("blue", "green", "red")


def test_paths_and_arrays_give_the_same(tmp_path: Path, plugins: Plugins) -> None:
    model = load_model(make_model(tmp_path, plugins), device="cpu", plugins=plugins)
    (array,) = images(1)
    Image.fromarray(array).save(tmp_path / "x.png")
    rows = [model.predict([source]) for source in (array, tmp_path / "x.png", str(tmp_path / "x.png"))]
    assert np.array_equal(rows[0], rows[1])
    assert np.array_equal(rows[0], rows[2])
    with pytest.raises(InvalidDatasetError, match="absent.png"):
        model.predict([tmp_path / "absent.png"])


def test_loading_leaves_the_callers_random_numbers_alone(tmp_path: Path, plugins: Plugins) -> None:
    make_model(tmp_path, plugins)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    load_model(tmp_path, device="cpu", plugins=plugins)
    assert torch.equal(torch.get_rng_state(), before)


def test_models_are_found_in_runs_studies_and_by_name(
    tmp_path: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(tmp_path / "studies" / "birds" / "model", plugins)
    monkeypatch.chdir(tmp_path)
    assert find_model(model) == model
    assert find_model(model.parent) == model
    assert find_model("birds") == Path("studies/birds/model")
    with pytest.raises(InvalidModelDirectoryError, match="there is no such directory"):
        load_model("fish", plugins=plugins)


def test_the_number_format_of_validation_is_used_where_the_device_is_the_same(tmp_path: Path, plugins: Plugins) -> None:
    make_model(tmp_path / "cpu", plugins, precision="bf16", device="cpu")
    make_model(tmp_path / "cuda", plugins, precision="fp16", device="cuda")
    assert load_model(tmp_path / "cpu", device="cpu", plugins=plugins).precision == "bf16"
    assert load_model(tmp_path / "cuda", device="cpu", plugins=plugins).precision == "fp32"
    assert load_model(tmp_path / "cpu", device="cpu", plugins=plugins).predict(images(2)).dtype == np.float32


@pytest.mark.parametrize("name", ["os.system", "../../x", "acme/tiny", "timm/no_such_model", "tiny\x1b[2J"])
def test_an_unknown_backbone_names_the_plugin_that_is_needed(tmp_path: Path, plugins: Plugins, name: str) -> None:
    make_model(tmp_path, plugins, backbone=name)
    with pytest.raises(InvalidModelDirectoryError) as caught:
        load_model(tmp_path, device="cpu", plugins=plugins)
    assert "is not registered" in str(caught.value)
    assert "the model was trained with tiny_plugin" in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_without_plugins_an_unknown_backbone_suggests_names(tmp_path: Path, plugins: Plugins) -> None:
    save_model(tmp_path, make_state(plugins), make_info(backbone="resnet19", plugins=[]))
    with pytest.raises(InvalidModelDirectoryError, match="did you mean 'resnet"):
        load_model(tmp_path, device="cpu", plugins=plugins)


Change = Callable[[dict[str, torch.Tensor]], object]
MISFITS: dict[str, tuple[Change, str]] = {
    "missing": (lambda s: s.pop("0.bias"), "0.bias is missing"),
    "extra": (lambda s: s.update(more=torch.zeros(2)), "more is not in the network"),
    "shape": (lambda s: s.update({"0.bias": torch.zeros(5)}), r"0.bias is float32\[5\], the network's is float32\[4\]"),
    "type": (lambda s: s.update({"0.bias": torch.zeros(4).double()}), r"0.bias is float64\[4\]"),
    "nan": (lambda s: s["0.bias"].fill_(float("nan")), "not-finite numbers in 0.bias"),
    "infinity": (lambda s: s["0.bias"].fill_(float("inf")), "not-finite numbers in 0.bias"),
    "classes": (
        lambda s: s.update({"4.weight": torch.zeros(5, 144), "4.bias": torch.zeros(5)}),
        "lists 3 classes, but",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, plugins: Plugins, name: str) -> None:
    change, message = MISFITS[name]
    state = make_state(plugins)
    change(state)
    save_model(tmp_path, state, make_info())
    with pytest.raises(InvalidModelDirectoryError, match=message):
        load_model(tmp_path, device="cpu", plugins=plugins)


def test_not_finite_weights_can_be_asked_for(tmp_path: Path, plugins: Plugins) -> None:
    state = make_state(plugins)
    state["0.bias"].fill_(float("nan"))
    save_model(tmp_path, state, make_info())
    model = load_model(tmp_path, device="cpu", plugins=plugins, allow_not_finite=True)
    assert np.isnan(model.predict(images(1))).all()


def header(values: Any, body: bytes = b"") -> bytes:
    text = values if isinstance(values, bytes) else json.dumps(values).encode()
    return struct.pack("<Q", len(text)) + text + body


def tensor(start: int, end: int, **changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [(end - start) // 4], "data_offsets": [start, end], **changes}


JUNK = {
    "empty": b"",
    "text": b"not a model at all",
    "zeros": bytes(1000),
    "huge header": struct.pack("<Q", 2**63) + b"{}",
    "large header": struct.pack("<Q", 200_000_000) + b"{}",
    "not json": header(b"{nonsense"),
    "deep": header(b"[" * 200_000),
    "overlapping": header({"a": tensor(0, 8), "b": tensor(4, 12)}, bytes(12)),
    "hole": header({"a": tensor(0, 4), "b": tensor(8, 12)}, bytes(12)),
    "wrong dtype": header({"a": tensor(0, 4, dtype="PICKLE")}, bytes(4)),
    "wrong shape": header({"a": tensor(0, 4, shape=[2**62, 4])}, bytes(4)),
    "twice": header(b'{"a": {"dtype":"F32","shape":[1],"data_offsets":[0,4]}, "a": {}}', bytes(4)),
    "many": header({f"{i}": tensor(0, 0) for i in range(200_000)}),
    "cut off": save({"a": torch.zeros(100)})[:-1],
    "longer": save({"a": torch.zeros(100)}) + b"x",
}


@pytest.mark.parametrize("name", JUNK)
def test_a_weights_file_with_a_fitting_hash_is_still_checked(tmp_path: Path, plugins: Plugins, name: str) -> None:
    commit_bytes(tmp_path, JUNK[name])
    with pytest.raises(InvalidModelDirectoryError, match="is not safetensors|its header claims"):
        load_model(tmp_path, device="cpu", plugins=plugins)


NAMES = ("<script>alert(1)</script>", "=cmd|'/c calc'!A1", "```\n# not a title", "\u202egnp.exe", "\x1b[2J", "😀")


def test_the_card_shows_names_as_text(tmp_path: Path, plugins: Plugins) -> None:
    text = card(make_info(NAMES, data={"source": "```\n<b>"}, config={"dataset": "a\nb"}))
    lines = text.splitlines()
    assert r"0: \x3cscript\x3ealert(1)\x3c/script\x3e" in lines
    assert "<" not in text
    assert "2: ```\\n# not a title" in lines
    assert "3: \\u202egnp.exe" in lines
    assert "5: 😀" in lines
    assert "\x1b" not in text
    assert sum(line.startswith("```") for line in lines) % 2 == 0
    assert "dataset = 'a\\nb'" in text


@pytest.mark.parametrize("source", ["```", "`````\n# a title", " ```", "~~~~", "<!--", "</pre><img src=x>"])
def test_nothing_ends_a_block_of_the_card(source: str) -> None:
    text = card(make_info(data={source: "x"}, versions={source: "y"}))
    block = text.split("## Data\n\n")[1].split("\n\n##")[0].splitlines()
    fencing_token = block[0].removesuffix("text")
    assert set(fencing_token) == {"`"}
    assert [line for line in block[1:] if fencing_token in line] == [fencing_token]
    assert block[-1] == fencing_token
    assert "<" not in text


def test_the_card_gives_the_accuracy_with_its_interval(plugins: Plugins) -> None:
    data = {"counts": {"val": 100}}
    assert "val_accuracy: 0.75 (95 %: 0.6570 to 0.8245, on the 100 images" in card(make_info(data=data))
    for odd in ({"counts": {"val": "100"}}, {"counts": [100]}, {"counts": {"val": 0}}, {}):
        assert "val_accuracy: 0.75\n" in card(make_info(data=odd))


def test_a_long_list_of_classes_is_cut_short_in_the_card() -> None:
    assert "and 300 more, in model.json" in card(make_info(tuple(f"c{i}" for i in range(500))))


@pytest.mark.parametrize(
    ("config", "license", "line"),
    [
        ({"pretrained": True}, "BSD-3-Clause", "started from pretrained weights; their licence: BSD-3-Clause"),
        ({"pretrained": True}, None, "their licence: unknown"),
        ({"weights": "mine.safetensors"}, None, "started from: mine.safetensors"),
        ({}, None, "started from: random weights"),
    ],
)
def test_the_card_tells_where_the_weights_started(config: dict[str, Any], license: str | None, line: str) -> None:
    assert line in card(make_info(config=config, weights_license=license))


#: runs the first Python block of each folder's README.md there, on x.pt
PLAIN = """
import os, sys, torch
torch.set_num_threads(1)
for folder in sys.argv[1:]:
    os.chdir(folder)
    space = {}
    exec(open("README.md").read().split("```python\\n")[1].split("```")[0], space)
    with torch.no_grad():
        torch.save(space["model"](torch.load("x.pt", weights_only=True)), "y.pt")
assert "automl_pt" not in sys.modules
"""

#: backbone, image size: with and without the stem for small images, and a vision transformer made for another size
PLAINLY = [("resnet18", 32), ("densenet121", 64), ("timm/resnet10t", 64), ("timm/test_vit", 96)]


def save_backbone(directory: Path, plugins: Plugins, name: str, size: int) -> torch.nn.Module:
    backbone = plugins.backbone(name)
    network = build_model(backbone, 3, size, seed=3)
    with torch.no_grad():  # so that the running statistics count, too
        network(torch.randn(4, 3, size, size))
    assert backbone.recipe is not None
    preprocessing = Preprocessing(size, backbone.mean, backbone.std)
    recipe = backbone.recipe(3, size)
    save_model(directory, network.state_dict(), make_info(backbone=name, preprocessing=preprocessing, recipe=recipe))
    return network.eval()


def test_the_lines_in_the_readme_load_the_model_without_this_package(tmp_path: Path, plugins: Plugins) -> None:
    folders, wanted = [], []
    for name, size in PLAINLY:
        folder = tmp_path / name.replace("/", "-")
        network, x = save_backbone(folder, plugins, name, size), torch.randn(2, 3, size, size)
        torch.save(x, folder / "x.pt")
        with torch.no_grad():
            wanted.append(network(x))
        folders.append(folder)
    done = subprocess.run([sys.executable, "-I", "-c", PLAIN, *map(str, folders)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for folder, logits in zip(folders, wanted, strict=True):
        assert torch.equal(torch.load(folder / "y.pt", weights_only=True), logits), folder.name


def test_five_lines_load_a_model_of_usual_size() -> None:
    recipe = load_plugins().backbone("resnet18").recipe
    assert recipe is not None
    assert len(loading_lines(make_info(recipe=recipe(3, 224))) or ()) == 5


def test_a_network_of_a_plugin_says_what_it_needs() -> None:
    assert loading_lines(make_info()) is None
    assert "comes from a plugin" in card(make_info())
