"""Files that are found and not taken are told of with their number, and no class is lost with them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from automl_pt.cli import cli
from automl_pt.core.errors import InvalidDatasetError
from automl_pt.data.find import find
from automl_pt.images.foreign import kind_of
from automl_pt.layouts.layouts import open_path
from automl_pt.layouts.left_out import notes
from automl_pt.plugins.manager import load_plugins

SYSTEMS = (
    *("@eaDir", "#recycle", "#snapshot", "@Recycle", "lost+found", "System Volume Information", "$RECYCLE.BIN"),
    *("__MACOSX", ".AppleDouble", ".Trashes", ".ipynb_checkpoints", "LOST.DIR", "Network Trash Folder", "found.000"),
)


def plant(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"an image, never decoded here")
    return root


@pytest.mark.parametrize("place", ["", "a/", "train/", "train/a/"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_what_systems_leave_behind_is_no_class_and_no_image(tmp_path: Path, place: str, name: str) -> None:
    splits = place.startswith("train")
    plant(tmp_path, *((f"{split}/{c}/1.png") for split in (("train", "val") if splits else (".",)) for c in "ab"))
    plant(tmp_path, f"{place}{name}/1.png/SYNOPHOTO_THUMB_M.jpg", f"{place}Thumbs.db", f"{place}.DS_Store")
    (tmp_path / place / name.upper()).mkdir(exist_ok=True)  # empty, as lost+found at the root of a disk
    data = open_path(tmp_path)
    assert (data.classes, len(data)) == (("a", "b"), 4 if splits else 2)
    assert notes(data.left_out) == []


@pytest.mark.parametrize(
    "ending",
    [
        *(".heic", ".HEIC", ".heif", ".avif", ".ppm", ".pgm", ".jp2", ".jxl", ".dcm", ".psd", ".cr2", ".NEF", ".dng"),
        *(".svs", ".svg", ".npy", ".nii.gz", ".mp4", ".jpg_large", ".zip", ".xyz", ""),
    ],
)
@pytest.mark.parametrize("inside", ["c", "train/c", "c/deep/er"])
def test_a_class_of_files_that_may_be_images_is_never_lost(tmp_path: Path, ending: str, inside: str) -> None:
    split = "train/" if inside.startswith("train") else ""
    plant(tmp_path, f"{split}a/1.png", f"{split}b/1.png", f"{inside}/1{ending}", f"{inside}/2{ending}")
    with pytest.raises(InvalidDatasetError, match=f"no usable image in {split}c") as caught:
        open_path(tmp_path)
    shown = f".{ending.rpartition('.')[2]}" if ending else "without an ending"
    assert f"ignored: 2 {shown}" in caught.value.given


def test_a_class_beside_a_folder_that_looks_like_a_wrapper_is_not_lost(tmp_path: Path) -> None:
    plant(tmp_path, "photos/one/1.png", "photos/two/1.png", "scans/1.heic")
    with pytest.raises(InvalidDatasetError, match="no usable image in scans"):
        open_path(tmp_path)


def test_a_folder_of_texts_and_what_systems_leave_behind_is_no_class(tmp_path: Path) -> None:
    plant(tmp_path, "a/1.png", "b/1.png", "docs/1.txt", "docs/README", "docs/labels.csv", "docs/.DS_Store")
    data = open_path(tmp_path)
    assert data.classes == ("a", "b")
    assert "folders without images, which are not classes: docs" in data.notes


def test_the_number_of_files_left_out_is_told_wherever_data_are_opened(tmp_path: Path) -> None:
    plant(tmp_path / "d", "a/1.png", "b/1.png", "b/.hid.png", "b/1", "notes.md", *(f"b/{n}.HEIC" for n in range(20)))
    plant(tmp_path, "outside.png")
    os.symlink(tmp_path / "outside.png", tmp_path / "d/a/link.png")
    images, _ = find(str(tmp_path / "d"), load_plugins())
    assert images.notes == (
        "ignored: 20 .HEIC (HEIC is not read; `magick mogrify -format png *.HEIC` converts it to PNG), "
        "a/link.png (a link that leaves the dataset; --follow-links takes it), "
        "1 .md (no image by its ending), 1 hidden, 1 without an ending; `automl-pt check` lists them",
    )
    shown = CliRunner().invoke(cli, ["check", str(tmp_path / "d")], env={"COLUMNS": "300"}).output
    assert "ignored: 20 .HEIC (HEIC is not read; `magick mogrify -format png *.HEIC` converts it to PNG)" in shown


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0", "HEIF"),
        (b"\0\0\0\x18ftypavif\0\0", "AVIF"),
        (b"\0\0\0\x18ftypmp42\0\0", "video"),
        (b"\xff\x0a\xfa", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n", "JPEG 2000"),
        (b"8BPS\0\1", "Photoshop"),
        (b"P6\n1 1\n255\n", "PNM"),
        (bytes(128) + b"DICM", "DICOM"),
        (b"\xef\xbb\xbf\n<!DOCTYPE HTML><p>404", "HTML"),
        (b"<?xml version='1.0'?><svg/>", "SVG"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"%PDF-1.7", "PDF"),
        (b"PK\3\4", "zip"),
    ],
)
def test_a_file_that_is_named_like_an_image_says_what_it_is(tmp_path: Path, content: bytes, kind: str) -> None:
    from automl_pt.images.decode import UnreadableImage, decode

    assert kind in str(kind_of(content))
    with pytest.raises(UnreadableImage, match=kind):
        decode(content, 8)
    assert kind_of(b"") is kind_of(b"nothing known") is None


@pytest.mark.parametrize("words", [["train"], ["search"], ["check"], ["report"], ["predict"], ["evaluate", "model"]])
@pytest.mark.parametrize("name", ["x" * 300, "d/" + "x" * 300 + "/y", "\u00e4" * 200])
def test_a_name_that_no_file_can_have_is_an_error(words: list[str], name: str, tmp_path: Path) -> None:
    from automl_pt.cli import main

    with pytest.raises(SystemExit) as caught:
        main([*words, name, *(["x.png"] if words == ["predict"] else [])])
    assert caught.value.code in (1, 2)
