"""The export with 8-bit integers: other programs run it, its figures are those of other images, faults are named."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from conftest import write_folder
from tiny import PLUGIN, load_tiny

from automl_pt.cli.export import command
from automl_pt.core.errors import ExportError, InstallationError, UsageError
from automl_pt.images.decode import decode_rgb
from automl_pt.layouts.listing import list_images
from automl_pt.model.int8 import export_int8, figures_beside
from automl_pt.model.load import load_model
from automl_pt.model.parity import ParityImages
from automl_pt.plugins.manager import Plugins
from automl_pt.runs.run import train


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, plugins: Plugins) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("learned")
    images = write_folder(root / "images", {"train": 12, "val": 16})
    given: dict[str, Any] = {"epochs": 4, "lr": 0.02, "batch_size": 4, "device": "cpu", "threads": 1}
    assert list(train(str(images), output=root / "run", plugins=plugins, backbone="tiny", **given))
    return root / "run", images


def test_the_command_says_and_writes_what_it_costs(
    learned: tuple[Path, Path], plugins: Plugins, tmp_path: Path
) -> None:
    target = tmp_path / "small.onnx"
    words = [str(learned[0]), "--format", "onnx-int8", "-o", str(target), "--plugin", plugins.files[0]]
    done = CliRunner().invoke(command, words, standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    for line in (
        ": validation images of",
        "24 images for the ranges, 24 others measured",
        "accuracy  100.0 %, in float32 100.0 %",
    ):
        assert line in done.output
    assert " times the speed" in done.output
    found = json.loads((tmp_path / "small.json").read_text())
    assert (found["range_images"], found["images"], found["same_class"]) == (24, 24, 24)
    assert found["comparison"]["accuracy_difference"] == 0
    assert found["bytes"] == target.stat().st_size
    assert {entry.op_type for entry in onnx.load(target).graph.node} >= {"QuantizeLinear", "DequantizeLinear", "Conv"}
    # neither file is replaced unless --force says so
    for path in (target, tmp_path / "small.json"):
        again = CliRunner().invoke(command, words, standalone_mode=False)
        assert isinstance(again.exception, UsageError)
        assert str(path) in str(again.exception)
        path.unlink()


@pytest.mark.parametrize("preprocessing", ["none", "resize"])
def test_another_program_gets_the_classes_of_the_model(
    learned: tuple[Path, Path], plugins: Plugins, tmp_path: Path, preprocessing: Any
) -> None:
    model = load_model(learned[0], device="cpu", plugins=plugins)
    paths = list_images([learned[1] / "val"]).paths
    wanted = model.predict(paths).argmax(1)
    found = export_int8(model, tmp_path / "x.onnx", ParityImages(paths, "images"), preprocessing=preprocessing)
    assert (found.accuracy, found.comparison, found.points_lost) == (None, None, None)
    assert found.same_class == found.images == len(paths) // 2
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"])
    for path, label in list(zip(paths, wanted, strict=True))[::5]:
        if preprocessing == "resize":
            image = decode_rgb(path.read_bytes(), path).transpose(2, 0, 1)[None]
        else:
            image = model.pixels([path])
        if preprocessing == "none":
            import torch

            image = model.info.preprocessing.normalise(torch.from_numpy(image)).numpy()
        assert session.run(["logits"], {"images": np.ascontiguousarray(image)})[0].argmax() == label
    held = {entry.key: entry.value for entry in onnx.load(tmp_path / "x.onnx").metadata_props}
    assert json.loads(held["classes"]) == list(model.classes)
    # the preprocessing stays in float32: nothing before the first layer with weights has quantised neighbours
    if preprocessing == "resize":
        steps = [node.op_type for node in onnx.load(tmp_path / "x.onnx").graph.node]
        assert {"MatMul", "Floor", "Mul", "Add"} <= set(steps[: steps.index("QuantizeLinear")])


def test_too_few_images_are_refused(learned: tuple[Path, Path], plugins: Plugins, tmp_path: Path) -> None:
    model = load_model(learned[0], device="cpu", plugins=plugins)
    paths = list_images([learned[1] / "val"]).paths[:3]
    with pytest.raises(UsageError, match=r"(?s)too few images to quantise.*3 images named.*at least 4"):
        export_int8(model, tmp_path / "x.onnx", ParityImages(paths, "images named"))
    assert list(tmp_path.iterdir()) == []


def test_without_onnxruntime_the_remedy_can_be_run(
    learned: tuple[Path, Path], plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime.quantization", None)
    model = load_model(learned[0], device="cpu", plugins=plugins)
    with pytest.raises(InstallationError, match=r'`pip install "onnx>=\S+" "onnxruntime>=\S+" "onnxscript>='):
        export_int8(model, tmp_path / "x.onnx", ParityImages([], "no images"))


def test_a_network_that_cannot_be_exported_is_named(tmp_path: Path, learned: tuple[Path, Path]) -> None:
    branching = PLUGIN.replace("nn.Sequential(nn.Conv2d", "Branching(nn.Conv2d").replace(
        "def tiny",
        "class Branching(nn.Sequential):\n"
        "    def forward(self, images):\n"
        "        return super().forward(images * (1 if float(images.sum()) > 3 else 2))\n\ndef tiny",
    )
    plugins = load_tiny(tmp_path, branching)
    model = load_model(learned[0], device="cpu", plugins=plugins)
    images = ParityImages(list_images([learned[1] / "val"]).paths, "images")
    with pytest.raises(ExportError, match="this model cannot be exported as onnx"):
        export_int8(model, tmp_path / "x.onnx", images)
    assert not figures_beside(tmp_path / "x.onnx").exists()
