"""Laboratory images from a folder to an exported model, by a network that begins with a convolution for RGB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tifffile
from PIL import Image
from tiny import PLUGIN, load_tiny

from automl_pt.api.search import run_search
from automl_pt.config import SearchConfig, TrainConfig, make
from automl_pt.core.errors import ConfigError, InvalidDatasetError
from automl_pt.data.by_content import pool_of
from automl_pt.data.manifest import Manifest
from automl_pt.data.pixel_survey import conversion_note, survey_pixels
from automl_pt.data.policy import Policy, make_policy
from automl_pt.data.prepare import measured, prepare
from automl_pt.dataset import LabeledImages
from automl_pt.images.pixel_format import RGB8, PixelFormat
from automl_pt.layouts.layouts import open_path
from automl_pt.model.export import export_model
from automl_pt.model.load import load_model
from automl_pt.model.parity import ParityImages
from automl_pt.plugins.manager import load_plugins
from automl_pt.reporting.sections.mistakes import pictures, saliency_section
from automl_pt.reporting.sections.validation_results import judge

SIDE = 8
DEEP = PixelFormat(1, "uint16")


def plant(folder: Path, channels: int, dtype: str, count: int = 12) -> Path:
    """Write images of two classes that differ by brightness in a small part of the range."""
    random = np.random.default_rng(0)
    for index in range(2 * count):
        path = folder / "ab"[index % 2] / f"{index}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = (random.normal(1000 + 400 * (index % 2), 20, (11, 9, channels))).astype(dtype)
        extra: dict[str, Any] = {"planarconfig": "contig"} if channels > 1 else {}
        tifffile.imwrite(path, pixels if channels > 1 else pixels[..., 0], photometric="minisblack", **extra)
    return folder


@pytest.mark.parametrize(("channels", "dtype"), [(1, "uint16"), (5, "float32")])
def test_a_folder_just_works_up_to_the_exported_model(tmp_path: Path, channels: int, dtype: str) -> None:
    folder, pixels = plant(tmp_path / "scans", channels, dtype), PixelFormat(channels, dtype)
    plugins = load_tiny(tmp_path)
    settings = {"dataset": str(folder), "backbones": ["tiny"], "plugins": plugins.files, "epochs": 3, "workers": 0}
    settings |= {"trials": 1, "batch_sizes": [4], "cache_dir": str(tmp_path / "cache"), "lr": (0.05, 0.05)}
    result = run_search(make(SearchConfig, {**settings, "augmentation": "crop+mixup"}), tmp_path / "study")
    manifest = Manifest.load(tmp_path / "study" / "manifest.json")
    assert manifest.pixels == pixels
    assert (tmp_path / "cache" / "pixels" / pool_of(manifest, SIDE)).is_file()
    model = load_model(result.model, plugins=plugins)
    rule = model.info.preprocessing
    assert (rule.pixels, len(rule.mean), 3.5 < rule.mean[0] < 6) == (pixels, channels, True)
    files = sorted(folder.glob("*/*.tif"))
    labels = [path.parent.name == "b" for path in files]
    assert (model.predict(files).argmax(1) == labels).mean() > 0.9
    found = export_model(model, tmp_path / "m.onnx", "onnx", ParityImages(files, "files"), preprocessing="resize")
    assert found.has_same_logits
    (taken,) = onnxruntime.InferenceSession(tmp_path / "m.onnx").get_inputs()
    assert (taken.type, taken.shape[1]) == (f"tensor({dtype.replace('float32', 'float')})", channels)
    assert "in the numbers of the files" in (Path(result.model) / "README.md").read_text()
    judged = judge(Path(result.model), tmp_path / "study" / "manifest.json", plugins=plugins)
    wrong = {"index": 0, "predicted": "a", "label": "b"}
    section, shown = saliency_section(judged, {"labels": [wrong], "mistakes": []})
    assert section["side"] >= 4
    assert len(shown) == 3
    assert pictures(judged, {"labels": [wrong], "mistakes": []}).keys() == {"image-0"}


def survey(folder: Path, **settings: Any) -> Any:
    return survey_pixels(open_path(folder), TrainConfig(dataset=str(folder), **settings))


def test_the_format_that_is_found_is_said_and_can_be_chosen(tmp_path: Path) -> None:
    folder = plant(tmp_path, 1, "uint16", 2)
    assert survey(folder).pixels == DEEP
    assert survey(folder).notes == ("images found: 4 of 1 channel, 16 bits; used as they are",)
    chosen = survey(folder, channels="3", depth="8")
    assert (chosen.pixels, chosen.notes) == (
        RGB8,
        ("images found: 4 of 1 channel, 16 bits; used as RGB, 8 bits",),
    )
    tifffile.imwrite(folder / "a" / "0.tif", np.zeros((3, 9, 9), np.uint16), photometric="minisblack")
    assert "1 file of several images: only the first is used (a/0.tif)" in survey(folder).notes
    Image.new("RGB", (9, 9)).save(folder / "a" / "x.png")
    mixed = survey(folder)
    assert mixed.pixels == RGB8
    assert "are reduced from 65,536 levels of brightness to 256, because 1 other has 8 bits" in " ".join(mixed.notes)
    several = np.zeros((9, 9, 5), np.uint16)
    tifffile.imwrite(folder / "b" / "5.tif", several, photometric="minisblack", planarconfig="contig")
    with pytest.raises(InvalidDatasetError, match=r"b/5.tif: 5 channels"):
        survey(folder)


def test_conversions_for_a_model_are_said(tiny_folder: Path, tmp_path: Path) -> None:
    scans, photographs = sorted(plant(tmp_path, 1, "uint16", 2).glob("*/*.tif")), sorted(tiny_folder.rglob("*.png"))[:3]
    note = "of 3 images looked at, 3 have RGB, 8 bits; the model takes 1 channel, 16 bits, to which they are converted"
    assert conversion_note(photographs, DEEP) == note
    assert conversion_note(scans, DEEP) is conversion_note(photographs, RGB8) is conversion_note([], DEEP) is None


def test_photographs_are_what_they_were(tiny_folder: Path, tmp_path: Path) -> None:
    assert survey(tiny_folder).notes == ()
    data = prepare(TrainConfig(dataset=str(tiny_folder), image_size=8), load_plugins(), manifest=tmp_path / "m.json")
    text = (tmp_path / "m.json").read_text()
    assert data.manifest.pixels == RGB8
    assert not any(word in text for word in ("pixels", "channels", "depth"))


def test_arrays_keep_their_depth_too(tmp_path: Path) -> None:
    images = LabeledImages([np.zeros((4, 4, 2), np.float32)] * 2, [0, 1], ["a", "b"])
    assert survey_pixels(images, TrainConfig(dataset="x")).pixels == PixelFormat(2, "float32")


def test_mean_and_deviation_are_those_of_the_training_images() -> None:
    images = np.random.default_rng(0).integers(0, 65536, (70, 2, 5, 5)).astype(np.uint16)
    images[:, 1] = 255
    mean, std = measured(images)
    np.testing.assert_allclose(mean, [images[:, 0].mean() / 255, 1], rtol=1e-12)
    np.testing.assert_allclose(std, [images[:, 0].std() / 255, 1], rtol=1e-12)


def test_what_changes_colours_is_refused_for_other_than_photographs() -> None:
    with pytest.raises(
        ConfigError, match="trivial is made for RGB in 8 bits, and these images have 1 channel, 16 bits"
    ):
        make_policy("crop+trivial", (), load_plugins(), 8, 2, DEEP)


def test_a_geometric_augmentation_keeps_the_type_and_the_range() -> None:
    import torch

    images = torch.from_numpy(np.full((2, 5, 8, 8), 60_000, np.uint16))
    made: Policy = make_policy("crop", (), load_plugins(), 8, 2, PixelFormat(5, "uint16"))
    found = made.changed(images, [0, 1], 1, 1)
    assert found.dtype == torch.uint16
    assert found.numpy().tolist() == images.numpy().tolist()


def test_a_network_without_a_first_convolution_for_rgb_is_refused(tmp_path: Path) -> None:
    from automl_pt.backbones.build import build_model

    text = PLUGIN.replace("nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), ", "").replace("4 * 36", "192")
    backbone = load_tiny(tmp_path, text).backbone("tiny")
    with pytest.raises(ConfigError, match="tiny takes RGB images only"):
        build_model(backbone, 2, 8, seed=1, channels=1)
