from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CLASSES, write_folder

from automl_pt.config import Settings, TrainConfig
from automl_pt.core.errors import InvalidDatasetError, OutputError, StudyError, UnknownNameError
from automl_pt.data import hashes
from automl_pt.data.cache import cache as cache_module
from automl_pt.data.loader import Loader
from automl_pt.data.manifest import Manifest
from automl_pt.data.prepare import Data, first_size, prepare
from automl_pt.dataset import Dataset, Hints, LabeledImages
from automl_pt.images.decode import UnreadableImage, decode
from automl_pt.plugins.hookspecs import hookimpl
from automl_pt.plugins.manager import Plugins, load_plugins
from automl_pt.runs.run import train


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return load_plugins()


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "SETTLED_NS", -1)


def ready(folder: Path | str, plugins: Plugins, manifest: Path | None = None, **settings: Any) -> Data:
    config = TrainConfig(dataset=str(folder), image_size=8, **settings)
    return prepare(config, plugins, manifest=manifest)


def test_a_folder_is_split_as_given_and_decoded_once(tiny_folder: Path, tmp_path: Path, plugins: Plugins) -> None:
    data = ready(tiny_folder, plugins, tmp_path / "manifest.json", cache_dir=str(tmp_path / "cache"))
    assert data.manifest == Manifest.load(tmp_path / "manifest.json")
    assert data.manifest.counts() == {"train": 24, "val": 12, "test": 12}
    assert data.manifest.classes == CLASSES
    train_pixels, val_pixels = data.pixels("train", 8), data.pixels("val", 8)
    assert data.decoded == 36
    wanted = np.stack([decode(tiny_folder / name, 8) for name in train_pixels.names])
    assert (np.asarray(train_pixels.images) == wanted).all()
    assert train_pixels.labels.tolist() == [CLASSES.index(name.split("/")[1]) for name in train_pixels.names]
    assert len(val_pixels.labels) == 12
    # a second search on the same data, in another study and with another seed
    again = ready(tiny_folder, plugins, tmp_path / "other.json", cache_dir=str(tmp_path / "cache"), seed=5)
    assert len(again.pixels("train", 8).labels) == 24
    assert again.decoded == 0
    assert again.inventory.hashes.read_files == 0
    # the test split is decoded when it is asked for
    assert len(data.pixels("test", 8).labels) == 12
    assert data.decoded == 48


def test_another_seeds_split_decodes_nothing_again(tmp_path: Path, plugins: Plugins) -> None:
    folder = write_folder(tmp_path / "images", {"train": 10}) / "train"
    first, second = (ready(folder, plugins, cache_dir=str(tmp_path / "cache"), seed=seed) for seed in (1, 2))
    assert first.manifest.fingerprint() != second.manifest.fingerprint()
    assert (first.decoded, second.decoded) == (30, 0)
    assert second.manifest.counts() == {"train": 24, "val": 6, "test": 0}


def test_deleting_the_test_split_changes_no_number(tmp_path: Path, plugins: Plugins) -> None:
    folder = write_folder(tmp_path / "images", {"train": 8, "val": 4, "test": 4})
    extra = folder / "test" / "a class of its own"
    extra.mkdir()
    shutil.copy(folder / "test" / "red" / "000.png", extra / "x.png")
    (folder / "test" / "red" / "broken.png").write_bytes(b"no image")

    def search(output: str) -> tuple[Any, ...]:
        settings: dict[str, Any] = {
            "backbone": "timm/test_resnet",
            "pretrained": False,
            "epochs": 2,
            "image_size": 32,
            "batch_size": 6,
        }
        results = list(train(str(folder), output=tmp_path / output, plugins=plugins, **settings))
        return [(one.train_loss, one.val_loss, one.val_accuracy) for one in results], (
            Manifest.load(tmp_path / output / "manifest.json").fingerprint()
        )

    with_test = search("with")
    shutil.rmtree(folder / "test")
    assert search("without") == with_test
    # and a study that began with it goes on without it
    data = ready(folder, plugins, tmp_path / "with" / "manifest.json")
    assert data.manifest.counts() == {"train": 24, "val": 12, "test": 13}
    assert len(data.pixels("train", 8).labels) == 24
    with pytest.raises(StudyError, match="13 vanished: test/blue/000.png"):
        data.pixels("test", 8)


def test_a_search_reads_no_test_image_when_it_goes_on(tiny_folder: Path, tmp_path: Path, plugins: Plugins) -> None:
    ready(tiny_folder, plugins, tmp_path / "manifest.json")
    for path in (tiny_folder / "test").rglob("*.png"):
        path.write_bytes(b"changed")
    data = ready(tiny_folder, plugins, tmp_path / "manifest.json")
    assert data.inventory.hashes.read_files == 0
    with pytest.raises(StudyError, match="12 changed: test/blue/000.png"):
        data.pixels("test", 8)


def test_a_changed_or_vanished_file_stops_a_resume_and_is_named(
    tiny_folder: Path, tmp_path: Path, plugins: Plugins
) -> None:
    ready(tiny_folder, plugins, tmp_path / "manifest.json")
    shutil.copy(tiny_folder / "train" / "red" / "001.png", tiny_folder / "train" / "red" / "000.png")
    (tiny_folder / "val" / "blue" / "002.png").unlink()
    with pytest.raises(StudyError, match="images of this study have changed") as caught:
        ready(tiny_folder, plugins, tmp_path / "manifest.json")
    assert caught.value.given == "1 vanished: val/blue/002.png; 1 changed: train/red/000.png"
    assert "restore the files" in caught.value.remedy


def test_an_unchanged_set_is_verified_without_reading_it(tiny_folder: Path, tmp_path: Path, plugins: Plugins) -> None:
    ready(tiny_folder, plugins, tmp_path / "manifest.json")
    (tiny_folder / "train" / "red" / "new.png").write_bytes((tiny_folder / "train" / "red" / "000.png").read_bytes())
    data = ready(tiny_folder, plugins, tmp_path / "manifest.json")
    assert data.inventory.hashes.read_files == 0
    # what was added is not used, and this is said
    assert data.manifest.counts()["train"] == 24
    assert data.notes[-1] == "1 images were added since the split was frozen and are not used: train/red/new.png"


def test_a_label_that_changed_in_a_table_stops_a_resume(tmp_path: Path, plugins: Plugins) -> None:
    write_folder(tmp_path / "images", {"train": 4})
    rows = [f"images/train/{name}/{index:03}.png,{name}" for name in CLASSES for index in range(4)]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["path,label", *rows]))
    ready(table, plugins, tmp_path / "manifest.json")
    table.write_text("\n".join(["path,label", *rows]).replace("red/000.png,red", "red/000.png,blue"))
    with pytest.raises(StudyError, match="1 of another class now: images/train/red/000.png"):
        ready(table, plugins, tmp_path / "manifest.json")


def test_unreadable_images_end_the_run_before_it_begins(tiny_folder: Path, tmp_path: Path, plugins: Plugins) -> None:
    (tiny_folder / "train" / "red" / "000.png").write_bytes(b"no image")
    (tiny_folder / "val" / "blue" / "001.png").write_bytes(b"")
    with pytest.raises(InvalidDatasetError, match="too many images are unreadable; none are allowed") as caught:
        ready(tiny_folder, plugins, tmp_path / "manifest.json")
    assert caught.value.given.startswith("2 of 36 (5.6%): train/red/000.png: ")
    assert "val/blue/001.png: the file is empty" in caught.value.given
    assert "--max-bad 0.056" in caught.value.remedy
    assert not (tmp_path / "manifest.json").exists()
    with pytest.raises(InvalidDatasetError, match="5.0% are allowed"):
        ready(tiny_folder, plugins, max_bad=0.05)


def test_images_left_out_are_listed_and_the_rest_is_what_it_was(
    tiny_folder: Path, tmp_path: Path, plugins: Plugins
) -> None:
    whole = ready(tiny_folder, plugins)
    (tiny_folder / "train" / "red" / "000.png").write_bytes(b"no image")
    settings: dict[str, Any] = {"max_bad": 0.056, "cache_dir": str(tmp_path / "cache")}
    data = ready(tiny_folder, plugins, tmp_path / "manifest.json", **settings)
    (left_out,) = data.manifest.left_out
    assert left_out.name == "train/red/000.png"
    assert left_out.reason.startswith("not a JPEG, PNG, WebP, BMP, GIF or TIFF file")
    assert [e for e in whole.manifest.entries if e.name != left_out.name] == list(data.manifest.entries)
    assert len(data.pixels("train", 8).labels) == 23
    assert data.notes[-1].startswith("1 image skipped, and listed in manifest.json: train/red/000.png: not a JPEG, PNG")
    assert data.decoded == 36
    for manifest in ("manifest.json", "another.json"):
        again = ready(tiny_folder, plugins, tmp_path / manifest, **settings)
        assert again.manifest == data.manifest
        assert len(again.pixels("train", 8).labels) == 23
        assert again.decoded == 0
    # nobody needs the broken file any more
    (tiny_folder / "train" / "red" / "000.png").unlink()
    again = ready(tiny_folder, plugins, tmp_path / "manifest.json", max_bad=0.056, cache_dir=str(tmp_path / "new"))
    assert len(again.pixels("train", 8).labels) == 23


def test_an_unreadable_test_image_is_judged_when_it_is_read(tiny_folder: Path, plugins: Plugins) -> None:
    (tiny_folder / "test" / "red" / "000.png").write_bytes(b"no image")
    with pytest.raises(InvalidDatasetError, match="1 of 12"):
        ready(tiny_folder, plugins).pixels("test", 8)
    pixels = ready(tiny_folder, plugins, max_bad=0.1).pixels("test", 8)
    assert len(pixels.labels) == len(pixels.names) == 11
    assert "test/red/000.png" not in pixels.names


def test_a_class_without_a_readable_image_is_refused(tiny_folder: Path, plugins: Plugins) -> None:
    for split in ("train", "val"):
        for path in (tiny_folder / split / "red").iterdir():
            path.write_bytes(b"no image")
    with pytest.raises(InvalidDatasetError, match="a class has no readable image") as caught:
        ready(tiny_folder, plugins, max_bad=0.9)
    assert "none in red (skipped: train/red/000.png: not a JPEG" in caught.value.given


def test_classes_that_look_alike_are_refused(tmp_path: Path, plugins: Plugins) -> None:
    folder = write_folder(tmp_path / "images", {"train": 3}) / "train"
    (folder / "red").rename(folder / "Blue")
    with pytest.raises(InvalidDatasetError, match="differ only in case"):
        ready(folder, plugins)


def test_digits_are_arrays_and_go_the_same_way(tmp_path: Path, plugins: Plugins) -> None:
    config = TrainConfig(dataset="digits", cache_dir=str(tmp_path))
    data = prepare(config, plugins, manifest=tmp_path / "manifest.json")
    assert data.hints == Hints(horizontal_flip=False, shift=False, image_size=8, pretrained=False)
    assert (data.decoded, data.pixels("val", 8).images.shape) == (1437, (360, 3, 8, 8))
    again = prepare(config, plugins, manifest=tmp_path / "manifest.json")
    assert again.pixels("train", 8).images.shape == (1077, 3, 8, 8)
    assert again.decoded == 0


def test_a_registered_name_wins_over_a_folder_unless_it_is_spelt_as_a_path(
    tmp_path: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "digits", {"train": 3, "val": 3})
    monkeypatch.chdir(tmp_path)
    assert ready("digits", plugins).manifest.classes[0] == "0"
    assert ready("./digits", plugins).manifest.classes == CLASSES


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("digit", UnknownNameError, "did you mean 'digits'"),
        ("./digit", InvalidDatasetError, "Folder or file not found"),
        ("no/such", InvalidDatasetError, "Folder or file not found"),
    ],
)
def test_what_is_not_there_is_told(name: str, kind: type[Exception], text: str, plugins: Plugins) -> None:
    with pytest.raises(kind, match=text):
        ready(name, plugins)


def test_too_large_for_disk_and_memory_falls_back_to_decoding_in_the_loader(
    tiny_folder: Path, tmp_path: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    def batches(data: Data) -> list[torch.Tensor]:
        loader = Loader(
            data.pixels("train", 8),
            batch_size=7,
            mean=(0.5, 0.5, 0.5),
            std=(0.2, 0.2, 0.2),
            seed=1,
            device=torch.device("cpu"),
            hints=data.hints,
            augmented_epochs=99,
            shuffle=True,
        )
        return [images for images, _ in loader.epoch(1)]

    wanted = batches(ready(tiny_folder, plugins))
    monkeypatch.delenv("AUTOML_PT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AUTOML_PT_CACHE_LIMIT", "0")
    monkeypatch.setattr(cache_module, "MEMORY_SHARE", 0.0)
    data = ready(tiny_folder, plugins)
    assert "images are decoded again for each batch" in data.notes[-1]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(batches(data), wanted, strict=True))
    # the same folder, named by the user, is an error instead
    with pytest.raises(OutputError, match="no space for the decoded images"):
        ready(tiny_folder, plugins, cache_dir=str(tmp_path / "named"))


def test_the_first_size_is_that_of_settings_hints_or_backbone(plugins: Plugins) -> None:
    config = TrainConfig(dataset="x", backbone="resnet18")
    assert first_size(config.model_copy(update={"image_size": 40}), plugins, Hints(image_size=8)) == 40
    assert first_size(config, plugins, Hints(image_size=8)) == 8
    assert first_size(config, plugins, Hints()) == 224
    assert first_size(Settings(dataset="x"), plugins, Hints()) == 224
    with pytest.raises(UnknownNameError):
        first_size(TrainConfig(dataset="x", backbone="resnet19"), plugins, Hints())


def test_progress_tells_of_hashing_and_decoding(tiny_folder: Path, tmp_path: Path, plugins: Plugins) -> None:
    told: list[tuple[str, int, int]] = []
    config = TrainConfig(dataset=str(tiny_folder), image_size=8, cache_dir=str(tmp_path))
    prepare(config, plugins, progress=lambda *step: told.append(step))
    assert [step for step in told if step[0] == "hashing"][-1] == ("hashing", 48, 48)
    assert [step for step in told if step[0] == "decoding"] == [("decoding", done, 36) for done in range(1, 37)]


def test_names_need_not_be_utf8(tiny_folder: Path, tmp_path: Path, plugins: Plugins) -> None:
    odd = os.fsdecode(b"\xff\n\x1b.png")
    (tiny_folder / "train" / "red" / "000.png").rename(tiny_folder / "train" / "red" / odd)
    for _ in range(2):
        data = ready(tiny_folder, plugins, tmp_path / "manifest.json")
        assert f"train/red/{odd}" in data.pixels("train", 8).names


class Lazy(list[np.ndarray]):
    """Arrays that count how often they are asked for; the last one cannot be read."""

    asked = 0

    def __getitem__(self, index: Any) -> Any:
        self.asked += 1
        if index == len(self) - 1:
            raise UnreadableImage("row 39", "torn")
        return super().__getitem__(index)


def test_lazy_arrays_with_a_content_id_are_asked_for_twice_and_then_never_again(tmp_path: Path) -> None:
    arrays = list(np.random.default_rng(0).integers(0, 256, (40, 9, 9, 3), dtype=np.uint8))
    for study in range(2):
        images = Lazy(arrays)
        labels, classes = [0, 1] * 20, ("a", "b")
        found = LabeledImages(images, labels, classes, names=[f"row {i}" for i in range(40)], content_id="version 1")
        plugins = load_plugins()
        plugins.manager.register(Registering(Dataset("lazy", lambda root, found=found: found)))
        config = TrainConfig(dataset="lazy", image_size=8, cache_dir=str(tmp_path), max_bad=0.2)
        data = prepare(config, plugins)
        assert sum(data.manifest.counts().values()) == 39
        assert [(item.name, item.reason) for item in data.manifest.left_out] == [("row 39", "torn")]
        # each hashed and decoded once; the unreadable one is tried whenever a split is frozen, and the first one is
        # looked at for the format of the pixels
        assert images.asked == (2 * 39 + 3 if study == 0 else 3)


class Registering:
    """A plugin with one dataset."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    @hookimpl
    def register_datasets(self) -> list[Dataset]:
        return [self.dataset]


def test_other_data_under_the_name_of_a_study_is_called_that(
    tiny_folder: Path, tmp_path: Path, plugins: Plugins
) -> None:
    ready(tiny_folder, plugins, tmp_path / "manifest.json")
    for path in sorted(tiny_folder.rglob("*.png")):
        path.rename(path.with_name(f"other-{path.name}"))
    with pytest.raises(StudyError, match=r"of other images\n  given: none of its \d+ images, such as"):
        ready(tiny_folder, plugins, tmp_path / "manifest.json")
