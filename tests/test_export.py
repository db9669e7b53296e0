"""Exports: what another program computes from them is what the model computes, on real images."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from safetensors import safe_open
from tiny import load_tiny, make_model

from automl_pt.cli.export import command
from automl_pt.errors import ExportError, InstallationError, UsageError
from automl_pt.layouts.listing import list_images
from automl_pt.model.export import BOUND, ENDINGS, Format, export_model
from automl_pt.model.load import Model, load_model
from automl_pt.plugins import Plugins

FORMATS: tuple[Format, ...] = ("onnx", "torch-export", "safetensors")


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Plugins:
    return load_tiny(tmp_path_factory.mktemp("plugin"))


@pytest.fixture
def model(tmp_path: Path, plugins: Plugins) -> Model:
    return load_model(make_model(tmp_path / "model", plugins), device="cpu", plugins=plugins)


@pytest.fixture
def pixels(model: Model, tiny_folder: Path) -> NDArray[np.uint8]:
    return model.pixels(list_images([tiny_folder / "val"]))


@pytest.mark.parametrize("preprocessing", [False, True])
def test_onnx_computes_the_same_elsewhere(
    tmp_path: Path, model: Model, pixels: NDArray[np.uint8], preprocessing: bool
) -> None:
    parity = export_model(model, tmp_path / "m.onnx", "onnx", pixels, preprocessing=preprocessing)
    assert (parity.images, parity.same_class) == (12, 12)
    assert parity.largest_difference <= BOUND
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 5):
        some = torch.from_numpy(pixels[:count])
        images = some if preprocessing else model.info.preprocessing.normalise(some)
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        assert np.abs(logits - model.forward(pixels[:count])).max() <= BOUND
    held = {entry.key: entry.value for entry in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert json.loads(held["classes"]) == list(model.classes)
    assert json.loads(held["preprocessing"])["image_size"] == 8


@pytest.mark.parametrize("preprocessing", [False, True])
def test_torch_export_computes_the_same(
    tmp_path: Path, model: Model, pixels: NDArray[np.uint8], preprocessing: bool
) -> None:
    export_model(model, tmp_path / "m.pt2", "torch-export", pixels, preprocessing=preprocessing)
    files = {"classes": ""}
    loaded = torch.export.load(io.BytesIO((tmp_path / "m.pt2").read_bytes()), extra_files=files).module()
    some = torch.from_numpy(pixels[:3])
    images = some if preprocessing else model.info.preprocessing.normalise(some)
    assert np.abs(loaded(images).detach().numpy() - model.forward(pixels[:3])).max() <= BOUND
    held = files["classes"]
    assert json.loads(held) == list(model.classes)


def test_safetensors_hold_the_weights_and_what_they_are(
    tmp_path: Path, model: Model, pixels: NDArray[np.uint8]
) -> None:
    parity = export_model(model, tmp_path / "m.safetensors", "safetensors", pixels)
    assert parity.largest_difference == 0
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        assert set(file.keys()) == set(model.network.state_dict())
        assert json.loads(file.metadata()["classes"]) == list(model.classes)


def test_safetensors_cannot_preprocess(tmp_path: Path, model: Model, pixels: NDArray[np.uint8]) -> None:
    with pytest.raises(ExportError, match="hold weights, which compute nothing"):
        export_model(model, tmp_path / "m", "safetensors", pixels, preprocessing=True)


class Contrary(torch.nn.Module):
    """Computes something else once it has been traced."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(images)
        return logits + 1 if torch.compiler.is_exporting() else logits


def changed(model: Model, network: torch.nn.Module) -> Model:
    return Model(model.info, network.eval(), model.device, model.precision)


def test_an_export_that_computes_something_else_is_not_written(
    tmp_path: Path, model: Model, pixels: NDArray[np.uint8]
) -> None:
    with pytest.raises(ExportError, match=r"to 0.0001\n  given: torch-export of tiny: 1 on 12 images"):
        export_model(changed(model, Contrary(model.network)), tmp_path / "m.pt2", "torch-export", pixels)
    assert not (tmp_path / "m.pt2").exists()


class Untraceable(torch.nn.Module):
    """Asks for a number while it is traced."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :3] * (2 if images.sum().item() > 0 else 1)


def test_a_network_that_cannot_be_traced_says_what_to_do(
    tmp_path: Path, model: Model, pixels: NDArray[np.uint8]
) -> None:
    with pytest.raises(ExportError, match="use the model directory itself"):
        export_model(changed(model, Untraceable()), tmp_path / "m.pt2", "torch-export", pixels)


def test_onnx_without_its_packages_names_the_extra(
    tmp_path: Path, model: Model, pixels: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InstallationError, match=r"pip install 'automl-pt\[onnx\]'"):
        export_model(model, tmp_path / "m.onnx", "onnx", pixels)


@pytest.mark.parametrize("kind", FORMATS)
def test_the_command_writes_and_tells(
    tmp_path: Path, tiny_folder: Path, model: Model, plugins: Plugins, runner: CliRunner, kind: Format
) -> None:
    output = tmp_path / f"out{ENDINGS[kind]}"
    words: list[Any] = [tmp_path / "model", tiny_folder / "val", "--format", kind, "-o", output, "--json"]
    given = [str(word) for word in [*words, "--plugin", plugins.files[0]]]
    done = runner.invoke(command, given, standalone_mode=False)
    found = json.loads(done.stdout)
    assert (found["images"], found["same_class"], found["bound"]) == (12, 12, BOUND)
    assert output.stat().st_size > 1000
    with pytest.raises(UsageError, match="not overwritten unasked"):
        command.main(given, standalone_mode=False)
