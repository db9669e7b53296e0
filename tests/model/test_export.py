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
from conftest import draw_image
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from tiny import load_tiny, make_model

from automl_pt import Dataset, LabeledImages, LazyImages, hookimpl
from automl_pt.cli.export import command
from automl_pt.core.errors import ExportError, InstallationError, UsageError
from automl_pt.images.resize import fit
from automl_pt.layouts.listing import list_images
from automl_pt.model.export import ENDINGS, Format, export_model
from automl_pt.model.load import Model, load_model
from automl_pt.model.own_images import validation_images
from automl_pt.model.parity import BOUND, Parity, ParityImages
from automl_pt.model.preprocessed import Stage, resize
from automl_pt.plugins.manager import Plugins
from automl_pt.runs import run
from automl_pt.training.result import EpochResult

FORMATS: tuple[Format, ...] = ("onnx", "torch-export", "safetensors")


@pytest.fixture
def model(tmp_path: Path, plugins: Plugins) -> Model:
    return load_model(make_model(tmp_path / "model", plugins), device="cpu", plugins=plugins)


@pytest.fixture
def images(tiny_folder: Path) -> ParityImages:
    return ParityImages(list_images([tiny_folder / "val"]).paths, "drawn images")


@pytest.fixture
def pixels(model: Model, images: ParityImages) -> NDArray[np.uint8]:
    return model.pixels(images.sources)


@pytest.mark.parametrize("preprocessing", ["none", "normalise"])
def test_onnx_computes_the_same_elsewhere(
    tmp_path: Path, model: Model, images: ParityImages, pixels: NDArray[np.uint8], preprocessing: Stage
) -> None:
    parity = export_model(model, tmp_path / "m.onnx", "onnx", images, preprocessing=preprocessing)
    assert parity.model_largest_difference == parity.largest_difference
    assert (parity.images, parity.same_class) == (12, 12)
    assert parity.largest_difference <= BOUND
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 5):
        some = torch.from_numpy(pixels[:count])
        given = some if preprocessing == "normalise" else model.info.preprocessing.normalise(some)
        (logits,) = session.run(["logits"], {"images": given.numpy()})
        assert np.abs(logits - model.forward(pixels[:count])).max() <= BOUND
    held = {entry.key: entry.value for entry in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert json.loads(held["classes"]) == list(model.classes)
    assert json.loads(held["preprocessing"])["image_size"] == 8


@pytest.mark.parametrize("preprocessing", ["none", "normalise"])
def test_torch_export_computes_the_same(
    tmp_path: Path, model: Model, images: ParityImages, pixels: NDArray[np.uint8], preprocessing: Stage
) -> None:
    export_model(model, tmp_path / "m.pt2", "torch-export", images, preprocessing=preprocessing)
    files = {"classes": ""}
    loaded = torch.export.load(io.BytesIO((tmp_path / "m.pt2").read_bytes()), extra_files=files).module()
    some = torch.from_numpy(pixels[:3])
    given = some if preprocessing == "normalise" else model.info.preprocessing.normalise(some)
    assert np.abs(loaded(given).detach().numpy() - model.forward(pixels[:3])).max() <= BOUND
    held = files["classes"]
    assert json.loads(held) == list(model.classes)


def test_safetensors_hold_the_weights_and_what_they_are(tmp_path: Path, model: Model, images: ParityImages) -> None:
    parity = export_model(model, tmp_path / "m.safetensors", "safetensors", images)
    assert parity.largest_difference == 0
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        assert set(file.keys()) == set(model.network.state_dict())
        assert json.loads(file.metadata()["classes"]) == list(model.classes)


def test_safetensors_cannot_preprocess(tmp_path: Path, model: Model, images: ParityImages) -> None:
    with pytest.raises(ExportError, match="cannot include preprocessing"):
        export_model(model, tmp_path / "m", "safetensors", images, preprocessing="normalise")


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
    tmp_path: Path, model: Model, images: ParityImages
) -> None:
    with pytest.raises(
        ExportError, match=r"more than 0.0001, or (.|\n)*torch-export of tiny: 1 on 12 images, allowed is 0.0001"
    ):
        export_model(changed(model, Contrary(model.network)), tmp_path / "m.pt2", "torch-export", images)
    assert not (tmp_path / "m.pt2").exists()


class Untraceable(torch.nn.Module):
    """Asks for a number while it is traced."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :3] * (2 if images.sum().item() > 0 else 1)


def test_a_network_that_cannot_be_traced_says_what_to_do(tmp_path: Path, model: Model, images: ParityImages) -> None:
    with pytest.raises(ExportError, match="use the model directory itself"):
        export_model(changed(model, Untraceable()), tmp_path / "m.pt2", "torch-export", images)


def test_onnx_without_its_packages_names_the_extra(
    tmp_path: Path, model: Model, images: ParityImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InstallationError, match='pip install "onnx>='):
        export_model(model, tmp_path / "m.onnx", "onnx", images)


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
    with pytest.raises(UsageError, match="exists already"):
        command.main(given, standalone_mode=False)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 90), st.integers(2, 90), st.integers(1, 24), st.integers(0, 9))
def test_resizing_in_the_network_is_the_decoders_within_one_level(h: int, w: int, size: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)
    found = resize(torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None], size)[0].numpy()
    assert found.shape == (3, size, size)
    assert np.abs(found - fit(pixels, size)).max() <= 1


@pytest.fixture
def photographs(tmp_path: Path) -> ParityImages:
    """Return smooth pictures of several sizes, as files."""
    paths = [tmp_path / "photographs" / f"{index}.png" for index in range(5)]
    paths[0].parent.mkdir()
    for index, (path, side) in enumerate(zip(paths, [(16, 16), (8, 8), (40, 24), (17, 90), (9, 10)], strict=True)):
        draw_image(index % 3, index).resize(side).save(path)
    return ParityImages(paths, "pictures", [0, 1, 2, 0, 1])


def test_a_network_that_resizes_takes_images_of_any_size(
    tmp_path: Path, model: Model, photographs: ParityImages
) -> None:
    for kind in ("onnx", "torch-export"):
        output = tmp_path / f"m{ENDINGS[kind]}"
        parity = export_model(model, output, kind, photographs, preprocessing="resize")
        assert (parity.images, parity.same_class) == (5, 5)
        assert parity.largest_difference <= BOUND
        assert parity.model_largest_difference < 0.2
        assert parity.accuracy == parity.model_accuracy
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    loaded = torch.export.load(io.BytesIO((tmp_path / "m.pt2").read_bytes())).module()
    for count, height, width in ((1, 2, 2), (3, 30, 11), (2, 11, 30)):
        several = np.random.default_rng(1).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
        wanted = model.logits(list(several))
        given = np.ascontiguousarray(several.transpose(0, 3, 1, 2))
        for found in (session.run(["logits"], {"images": given})[0], loaded(torch.from_numpy(given)).detach().numpy()):
            assert np.abs(found - wanted).max() < 0.2


def trained(tiny_folder: Path, tmp_path: Path, plugins: Plugins) -> tuple[Path, EpochResult]:
    """Train for three epochs on the folder's own splits; return the run and its kept epoch."""
    settings: dict[str, Any] = {"backbone": "tiny", "epochs": 3, "batch_size": 4, "lr": 0.001, "threads": 1}
    results = list(run.train(str(tiny_folder), output=tmp_path / "run", plugins=plugins, device="cpu", **settings))
    return tmp_path / "run", next(result for result in reversed(results) if result.is_best)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_export_has_the_validation_accuracy_of_the_run(
    tiny_folder: Path, tmp_path: Path, plugins: Plugins, runner: CliRunner, kind: Format
) -> None:
    directory, kept = trained(tiny_folder, tmp_path, plugins)
    words = [directory, "--format", kind, "-o", tmp_path / f"m{ENDINGS[kind]}", "--plugin", plugins.files[0]]
    found = json.loads(runner.invoke(command, [*map(str, words), "--json"], standalone_mode=False).stdout)
    # no images are named: the validation images of the run are found again
    assert (found["images"], found["said"]) == (12, f"validation images of {tiny_folder}")
    assert found["accuracy"] == found["model_accuracy"] == kept.val_accuracy
    assert found["largest_difference"] <= BOUND
    shown = runner.invoke(command, [*map(str, words), "--force"], standalone_mode=False).stdout
    assert f"(bound 0.0001); 12 have the same class\n  accuracy on them: export {kept.val_accuracy:.4f}" in shown
    if kind == "onnx":
        shown = runner.invoke(command, [*map(str, words), "--force", "--preprocessing", "resize"]).stdout
        assert "resized in the network, not by the decoder: from the model's own logits they differ by" in shown


def test_a_model_whose_images_have_gone_wants_some_named(tiny_folder: Path, tmp_path: Path, plugins: Plugins) -> None:
    directory, _ = trained(tiny_folder, tmp_path, plugins)
    loaded = load_model(directory, device="cpu", plugins=plugins)
    (tiny_folder / "val" / "red" / "000.png").write_text("no image any more")
    assert len(validation_images(loaded, directory, plugins).sources) == 11
    assert len(validation_images(loaded, directory, plugins, most=5).sources) <= 5
    for path in (tiny_folder / "val").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(UsageError, match="none of the validation images can be read(.|\n)*give images after the model"):
        validation_images(loaded, directory, plugins)
    tiny_folder.rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="give images after the model: files, folders or patterns"):
        validation_images(loaded, directory, plugins)


class Lazy:
    """A dataset of 40 validation images that counts which of them it has made."""

    def __init__(self) -> None:
        self.made: set[int] = set()

    def draw(self, index: int) -> Any:
        self.made.add(index)
        return np.full((9, 9, 3), index, np.uint8)

    @hookimpl
    def register_datasets(self) -> list[Dataset]:
        classes, labels = ("blue", "green", "red"), [index % 3 for index in range(40)]
        return [Dataset("lazy", lambda _: LabeledImages(LazyImages(40, self.draw), labels, classes, ["val"] * 40))]


def test_of_a_lazy_set_no_more_images_are_made_than_are_wanted(tmp_path: Path) -> None:
    plugins, lazy = load_tiny(tmp_path), Lazy()
    plugins.manager.register(lazy, "lazy")
    directory = make_model(tmp_path / "model", plugins, config={"dataset": "lazy"})
    found = validation_images(load_model(directory, device="cpu", plugins=plugins), directory, plugins, most=5)
    assert len(found.sources) == len(lazy.made) == 5
    assert found.labels == tuple(int(image[0, 0, 0]) % 3 for image in found.sources)


def test_a_model_that_names_no_data_wants_images_named(model: Model, tmp_path: Path, plugins: Plugins) -> None:
    with pytest.raises(UsageError, match="model.json names no data"):
        validation_images(model, tmp_path / "model", plugins)


class Large(torch.nn.Module):
    """Gives logits that float32 cannot hold to 1e-4, from a sum whose terms other programs add in another order."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(images)
        return logits * 3e5


class Slipping(torch.nn.Module):
    """Differs by a share of its logits once it has been traced."""

    def __init__(self, network: torch.nn.Module, share: float) -> None:
        super().__init__()
        self.network, self.share = network, share

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(images)
        return logits * (1 + self.share) if torch.compiler.is_exporting() else logits


def test_large_logits_are_compared_by_their_size(tmp_path: Path, model: Model, images: ParityImages) -> None:
    large = Large(model.network)
    parity = export_model(changed(model, large), tmp_path / "m.onnx", "onnx", images)
    assert parity.largest_difference <= parity.bound
    assert parity.bound > 10 * BOUND
    within = export_model(changed(model, Slipping(large, 3e-6)), tmp_path / "m.pt2", "torch-export", images)
    assert BOUND < within.largest_difference <= within.bound
    with pytest.raises(ExportError, match=r"allowed is \d"):
        export_model(changed(model, Slipping(large, 1e-4)), tmp_path / "n.pt2", "torch-export", images)
    # of small logits no more may differ than before
    with pytest.raises(ExportError, match=r"allowed is 0\.0001"):
        export_model(changed(model, Slipping(model.network, 0.01)), tmp_path / "n.pt2", "torch-export", images)
    assert not (tmp_path / "n.pt2").exists()


class Indefinite(torch.nn.Module):
    """Gives no numbers once it has been traced."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = images.flatten(1)[:, :3]
        return logits * float("nan") if torch.compiler.is_exporting() else logits


def test_an_export_that_gives_no_numbers_is_refused(tmp_path: Path, model: Model, images: ParityImages) -> None:
    with pytest.raises(ExportError, match=r"inf on 12 images"):
        export_model(changed(model, Indefinite()), tmp_path / "m.pt2", "torch-export", images)


@pytest.fixture
def halves(tmp_path: Path) -> ParityImages:
    """Return images whose sums come close to half a level in many pixels, where two runtimes round apart."""
    folder = tmp_path / "halves"
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(40):
        height, width = (int(side) for side in random.integers(150, 420, 2))
        smooth = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        picture = np.asarray(Image.fromarray(smooth).resize((width, height), Image.Resampling.BICUBIC), np.int16)
        noisy = picture + random.integers(-9, 9, picture.shape)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{index}.png")
    return ParityImages(sorted(folder.iterdir()), "pictures")


class Steep(torch.nn.Module):
    """Shows one pixel's level in its logits, far above their bound."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(3 * 8 * 8, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(images.flatten(1))
        return logits


@pytest.mark.parametrize("kind", ["onnx", "torch-export"])
def test_what_resizes_is_compared_in_pixels_and_its_logits_on_equal_ones(
    tmp_path: Path, model: Model, halves: ParityImages, kind: Format
) -> None:
    parity = export_model(changed(model, Steep()), tmp_path / "m", kind, halves, preprocessing="resize")
    assert parity.pixels == 40 * 3 * 8 * 8
    assert parity.differing_pixels <= 0.01 * parity.pixels
    assert parity.largest_pixel_difference <= 1
    assert (parity.largest_difference <= parity.bound, parity.same_class) == (True, 40)


@pytest.mark.parametrize(
    ("differing", "largest", "same"), [(0, 0, True), (100, 1, True), (101, 1, False), (1, 2, False)]
)
def test_pixels_may_differ_by_rounding_alone(differing: int, largest: float, same: bool) -> None:
    figures: dict[str, Any] = {"images": 1, "same_class": 1, "model_same_class": 1, "said": "", "pixels": 10_000}
    figures |= dict.fromkeys(("largest_difference", "model_largest_difference", "accuracy", "model_accuracy"), 0.0)
    found = Parity(**figures, differing_pixels=differing, largest_pixel_difference=largest)
    assert found.has_same_pixels is same


def test_an_export_that_resizes_otherwise_is_refused(
    tmp_path: Path, model: Model, halves: ParityImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(images: torch.Tensor, *how: Any) -> torch.Tensor:
        levels = resize(images, *how)
        return levels.flip(3) if torch.compiler.is_exporting() else levels

    monkeypatch.setattr("automl_pt.model.preprocessed.resize", elsewhere)
    with pytest.raises(ExportError, match=r"pixels of 40 images differ(.|\n)*export without --preprocessing resize"):
        export_model(model, tmp_path / "m.pt2", "torch-export", halves, preprocessing="resize")
    assert not (tmp_path / "m.pt2").exists()
