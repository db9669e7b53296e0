from __future__ import annotations

import io
import os
import shutil
import socket
import unicodedata
from pathlib import Path

import pytest
from conftest import draw_image

from automl_pt.core.errors import ConfigError, DatasetError, InvalidDatasetError, NotLabeledDatasetError
from automl_pt.core.text import few, printable
from automl_pt.dataset import LabeledImages
from automl_pt.layouts.layouts import list_images, open_path, read_list
from automl_pt.layouts.listing import Listing


def plant(root: Path, *names: str) -> Path:
    """Write a small image, no two alike, under each name."""
    for index, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_image(0, index, 4).save(path, "PNG")
    return root


def labels(data: LabeledImages) -> dict[str, str]:
    assert data.names is not None
    return {name: data.classes[label] for name, label in zip(data.names, data.labels, strict=True)}


def test_class_folders(tmp_path: Path) -> None:
    data = open_path(plant(tmp_path, "dog/2.png", "cat/1.PNG", "cat/deep/er/3.jpeg"))
    assert labels(data) == {"cat/1.PNG": "cat", "cat/deep/er/3.jpeg": "cat", "dog/2.png": "dog"}
    assert (data.classes, data.splits, data.left_out, data.notes) == (("cat", "dog"), None, (), ())
    assert list(data.images) == [tmp_path / name for name in data.names or ()]


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("train", "val", "test"), ("Train", "VALID", "Testing"), ("training", "validation", "TEST")],
)
def test_split_folders_in_any_case(tmp_path: Path, train: str, val: str, test: str) -> None:
    names = [f"{split}/{label}/1.png" for split in (train, val, test) for label in ("a", "b")]
    data = open_path(plant(tmp_path, *names))
    given = dict(zip(data.names or (), data.splits or (), strict=True))
    assert given == {name: {train: "train", val: "val", test: "test"}[name.split("/")[0]] for name in names}
    assert data.classes == ("a", "b")
    said = any("splits as given" in note and repr(val) in note for note in data.notes)
    assert said == ((train, val, test) != ("train", "val", "test"))


def test_a_train_folder_alone_is_a_split_to_be_divided_further(tmp_path: Path) -> None:
    data = open_path(plant(tmp_path, "train/a/1.png", "train/b/1.png"))
    assert list(data.splits or ()) == ["train", "train"]


def test_one_wrapping_folder_is_looked_through_and_said(tmp_path: Path) -> None:
    plant(tmp_path, "photos/a/1.png", "photos/b/1.png", "__MACOSX/photos/a/._1.png")
    data = open_path(tmp_path)
    assert labels(data) == {"a/1.png": "a", "b/1.png": "b"}
    assert data.root == tmp_path / "photos"
    assert "'photos'" in data.notes[0]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    data = open_path(plant(tmp_path, "train/1.png", "bus/1.png", "train/steam/2.png"))
    assert data.classes == ("bus", "train")
    assert data.splits is None


def test_an_unlabelled_test_folder_is_left_out_and_said(tmp_path: Path) -> None:
    data = open_path(plant(tmp_path, "train/a/1.png", "train/b/1.png", "test/1.png", "test/2.png"))
    assert set(data.splits or ()) == {"train"}
    assert [name for name, _ in data.left_out] == ["test/1.png", "test/2.png"]
    assert "2 images are in no class folder" in data.notes[-1]


def test_hidden_and_foreign_files_are_ignored_and_listed(tmp_path: Path) -> None:
    plant(tmp_path, "a/1.png", "b/1.png", "a/._1.png", ".ipynb_checkpoints/1.png", "a/.x/1.png", "__MACOSX/a/1.png")
    for name in ("a/Thumbs.db", "a/.DS_Store", "a/notes.txt", "b/scan.HEIC"):
        (tmp_path / name).write_bytes(b"x")
    data = open_path(tmp_path)
    assert len(data) == 2
    assert dict(data.left_out) == {
        ".ipynb_checkpoints": "hidden, or a system file",
        "__MACOSX": "hidden, or a system file",
        "a/._1.png": "hidden, or a system file",
        "a/.DS_Store": "hidden, or a system file",
        "a/.x": "hidden, or a system file",
        "a/Thumbs.db": "hidden, or a system file",
        "a/notes.txt": "not a JPEG, PNG, WebP, BMP, GIF or TIFF file by its ending",
        "b/scan.HEIC": "HEIC is not read; `magick mogrify -format png *.HEIC` converts it to PNG",
    }


def test_links_count_no_file_twice_and_lead_nowhere_else(tmp_path: Path) -> None:
    outside = plant(tmp_path / "outside", "secret.png")
    root = plant(tmp_path / "data", "a/1.png", "b/1.png", ".store/2.png")
    for name, target in {
        "a/loop": "..",
        "a/root": str(root),
        "a/again.png": "1.png",
        "a/other.png": "../b/1.png",
        "a/self.png": "self.png",
        "a/gone.png": "nowhere.png",
        "a/secret.png": str(outside / "secret.png"),
        "a/stored.png": "../.store/2.png",
        "a/twice.png": "../.store/2.png",
        "linked": str(outside),
    }.items():
        os.symlink(target, root / name)
    data = open_path(root)
    assert list(data.names or ()) == ["a/1.png", "a/stored.png", "b/1.png"]
    reasons = dict(data.left_out)
    assert reasons["a/secret.png"] == reasons["linked"] == "a link that leaves the dataset; --follow-links takes it"
    assert reasons["a/loop"] == reasons["a/root"] == "a link to a folder; its files are counted where they are"
    assert reasons["a/self.png"] == reasons["a/gone.png"] == "a link that leads nowhere, or in a circle"
    assert reasons["a/again.png"] == reasons["a/other.png"] == reasons["a/twice.png"]


def test_links_are_followed_on_request_and_nothing_counts_twice(tmp_path: Path) -> None:
    store = plant(tmp_path / "store", "cat/1.png", "cat/deep/2.png", "cat/notes.txt", "dog/3.png")
    root = plant(tmp_path / "data", "b/1.png")
    for name, target in {
        "a": store / "cat",
        "again": store / "cat",
        "b/3.png": store / "dog/3.png",
        "b/4.png": store / "dog/3.png",
        "b/up": tmp_path,
        "c.png": tmp_path / "nowhere.png",
    }.items():
        os.symlink(target, root / name)
    os.symlink(root, store / "cat/deep/back")
    data = open_path(root, follow_links=True)
    assert list(data.names or ()) == ["a/1.png", "a/deep/2.png", "b/1.png", "b/3.png"]
    assert list(data.classes) == ["a", "b"]
    assert all(Path(image).read_bytes() for image in data.images)  # type: ignore[arg-type]
    assert dict(data.left_out) == {
        "a/deep/back": "a link to a folder; its files are counted where they are",
        "a/notes.txt": "not a JPEG, PNG, WebP, BMP, GIF or TIFF file by its ending",
        "again": "a link to a folder that is counted already",
        "b/4.png": "a link to a file that is counted already",
        "b/up/data": "a folder that is counted already, through a link",
        "b/up/store/cat": "a folder that is counted already, through a link",
        "b/up/store/dog/3.png": "a file that is counted already, through a link",
        "c.png": "a link that leads nowhere, or in a circle",
    }


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    plant(tmp_path / "data", "a/1.png", "b/1.png")
    os.symlink(tmp_path / "data", tmp_path / "link")
    assert open_path(tmp_path / "link").root == tmp_path / "data"


def test_pipes_and_sockets_are_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, "a/1.png", "b/1.png")
    os.mkfifo(tmp_path / "a/pipe.jpg")
    monkeypatch.chdir(tmp_path / "b")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jpg")
        data = open_path(tmp_path)
    assert data.left_out == (
        ("a/pipe.jpg", "a pipe, socket or device"),
        ("b/socket.jpg", "a pipe, socket or device"),
    )


def test_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    plant(tmp_path, "a/1.png", "b/1.png")
    shutil.copy(tmp_path / "a/1.png", os.fsencode(tmp_path) + b"/a/\xff\n\x1b.png")
    data = open_path(tmp_path)
    assert data.names is not None
    assert "a/\udcff\n\x1b.png" in data.names
    assert all(Path(image).read_bytes() for image in data.images)
    assert printable("a/\udcff\n\x1b\u202e.png") == "a/\\udcff\\n\\x1b\\u202e.png"


def test_the_order_does_not_depend_on_the_file_system(tmp_path: Path) -> None:
    names = [f"{label}/{index}.png" for label in "cab" for index in (3, 1, 2)]
    one, other = plant(tmp_path / "one", *names), plant(tmp_path / "other", *reversed(names))
    assert open_path(one).names == open_path(other).names == tuple(sorted(names))


@pytest.mark.parametrize(
    ("names", "folders", "kind", "message"),
    [
        ((), (), InvalidDatasetError, "the dataset holds no images"),
        (("1.png", "2.png"), (), NotLabeledDatasetError, "2 images in no class folder"),
        (("train/1.png", "test/1.png"), (), NotLabeledDatasetError, "the images have no labels"),
        (("train/a/1.png", "train/b/1.png", "val/1.png"), (), NotLabeledDatasetError, "val: 1 images in no class"),
        (("train/a/1.png", "val/a/1.png", "valid/a/1.png"), (), InvalidDatasetError, "two folders have the same split"),
        (("val/a/1.png", "test/a/1.png"), (), InvalidDatasetError, "no train folder"),
        (("train/a/1.png", "val/a/1.png", "more/a/1.png"), (), InvalidDatasetError, "splits beside classes"),
        (("a/1.png", "b/1.png"), ("c",), InvalidDatasetError, "no usable image in c"),
        (("train/a/1.png", "train/b/1.png", "val/a/1.png"), ("val/b",), InvalidDatasetError, "in val/b"),
        (("train/a/1.png", "train/b/1.png"), ("val",), InvalidDatasetError, "no usable image in val"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(
    tmp_path: Path, names: tuple[str, ...], folders: tuple[str, ...], kind: type[DatasetError], message: str
) -> None:
    plant(tmp_path, *names)
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(kind, match=message) as caught:
        open_path(tmp_path)
    assert type(caught.value) is kind


def test_a_class_with_files_of_another_kind_only_is_not_lost_in_silence(tmp_path: Path) -> None:
    plant(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "c").mkdir()
    (tmp_path / "c/1.psd").write_bytes(b"8BPS")
    with pytest.raises(InvalidDatasetError, match="a class folder holds no images"):
        open_path(tmp_path)


def test_a_folder_of_texts_is_no_class_and_said(tmp_path: Path) -> None:
    plant(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/readme.txt").write_text("x")
    data = open_path(tmp_path)
    assert data.classes == ("a", "b")
    assert data.notes == ("folders without images, which are not classes: docs",)


def test_an_unlabelled_folder_with_a_table_points_at_the_table(tmp_path: Path) -> None:
    plant(tmp_path, "1.png")
    (tmp_path / "labels.csv").write_text("path,label\n1.png,a\n")
    with pytest.raises(NotLabeledDatasetError, match="give the table labels.csv itself"):
        open_path(tmp_path)


def test_other_paths_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_bytes(b"x")
    with pytest.raises(InvalidDatasetError, match="a folder, a zip or tar archive, or a CSV or parquet table"):
        open_path(tmp_path / "a.docx")
    with pytest.raises(InvalidDatasetError, match="Folder or file not found"):
        open_path(tmp_path / "absent")
    with pytest.raises(ConfigError, match="apply to a table"):
        open_path(plant(tmp_path / "d", "a/1.png"), label_column="x")


def test_an_unreadable_folder_is_named(tmp_path: Path) -> None:
    plant(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "b").chmod(0)
    try:
        if os.access(tmp_path / "b", os.R_OK):
            pytest.skip("this user may read everything")
        with pytest.raises(InvalidDatasetError, match="a folder of the dataset is not readable"):
            open_path(tmp_path)
    finally:
        (tmp_path / "b").chmod(0o755)


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [
        (r"p(\d+)_", ["group:1", "group:1", "group:2", "name:b/x.png"]),
        (r"p\d", ["group:p1", "group:p1", "group:p2", "name:b/x.png"]),
    ],
)
def test_groups_by_pattern(tmp_path: Path, pattern: str, groups: list[str]) -> None:
    data = open_path(plant(tmp_path, "a/p1_1.png", "a/p1_2.png", "b/p2_1.png", "b/x.png"), group_by=pattern)
    assert data.groups == groups
    assert "1 images do not match and are groups of their own" in data.notes[-1]


def test_a_pattern_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidDatasetError, match="group_by matches no image"):
        open_path(plant(tmp_path, "a/1.png", "b/1.png"), group_by="nowhere")


def test_images_to_predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, "one/b.png", "one/deep/a.jpg", "one/.hidden.png", "two/[x].png", "two/y.png")
    monkeypatch.chdir(tmp_path)
    assert list_images(["one"]) == Listing([Path("one/b.png"), Path("one/deep/a.jpg")], ("ignored: 1 hidden",))
    again = list_images(["two/*.png", "one/b.png", "two/y.png"])
    assert again.paths == [Path("two/[x].png"), Path("two/y.png"), Path("one/b.png")]
    assert again.notes == ("1 name given before: each image is used once",)
    assert list_images(["two/[x].png", "**/a.jpg"]).paths == [Path("two/[x].png"), Path("one/deep/a.jpg")]
    assert list_images([Path("two/absent.png")]) == Listing([Path("two/absent.png")], ())
    with pytest.raises(InvalidDatasetError, match="Folder or file not found"):
        list_images(["nowhere/*.png"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidDatasetError, match="the folder holds no images"):
        list_images(["empty"])


def test_what_a_folder_or_pattern_holds_beside_images_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, "in/a.png", "in/deep/b.png", "out.png")
    for name in ("x.PSD", "y.ppm", "w.HEIC", "v.heic", "z", "notes.txt", "Thumbs.db"):
        (tmp_path / "in" / name).write_bytes(b"x")
    os.symlink(tmp_path / "out.png", tmp_path / "in/link.png")
    monkeypatch.chdir(tmp_path)
    (said,) = list_images(["in"]).notes
    for kind in (
        "1 .PSD (Photoshop is not read; `magick",
        "1 .ppm (PNM",
        "1 .HEIC",
        "1 .heic",
        "1 without an ending",
        "1 .txt",
    ):
        assert kind in said
    assert "link.png (a link out of the folder; name the file" in said
    assert "Thumbs" not in said
    assert list_images(["in/*.png", "in/d*", "in/a.png"][:1]).notes == ()
    (said,) = list_images(["in/[ad]*"]).notes
    assert said == "ignored: in/deep (a folder that a pattern matches; name the folder to use its images)"
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/1.dng").write_bytes(b"x")
    with pytest.raises(
        InvalidDatasetError,
        match=r"raw: no image; ignored: 1 .dng \(camera raw is not read; `darktable",
    ):
        list_images(["raw"])


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"\xef\xbb\xbfa.png\r\nb.png\r\n", ["a.png", "b.png"]),
        ("\ufeffa.png\r\n\u00e4.png\r\n".encode("utf-16-le"), ["a.png", "\u00e4.png"]),
        ("\ufeffa.png\nb.png".encode("utf-16-be"), ["a.png", "b.png"]),
        (b"\xef\xbb\xbf", []),
    ],
)
def test_a_byte_order_mark_is_no_part_of_a_name(content: bytes, names: list[str]) -> None:
    assert read_list(io.BytesIO(content)) == [Path(name) for name in names]


def test_a_list_that_is_half_utf16_is_refused() -> None:
    with pytest.raises(InvalidDatasetError, match="is not UTF-16"):
        read_list(io.BytesIO(b"\xff\xfea"))


def test_lists_of_files_from_standard_input() -> None:
    assert read_list(io.BytesIO(b"a b.png\r\n\nc\xff.png\n")) == [Path("a b.png"), Path("c\udcff.png")]
    assert read_list(io.BytesIO(b"a\nb.png\0c.png\0"), nul=True) == [Path("a\nb.png"), Path("c.png")]


def test_few_names_a_few() -> None:
    assert few(["a", "b"], 2) == "a, b"
    assert few("abcd", 2) == "a, b and 2 more"
    assert unicodedata.category("\u200b") == "Cf"
    assert printable("a\u200bé漢") == "a\\u200bé漢"
