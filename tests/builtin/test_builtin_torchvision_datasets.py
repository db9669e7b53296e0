"""Each of torchvision's sets, read from a few small files in its own format."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from automl_pt.builtin import cifar
from automl_pt.builtin.torchvision_datasets import PREFIX, TABLE
from automl_pt.core.errors import InvalidDatasetError
from automl_pt.plugins.manager import load_plugins

SIDE = 32


def pixels(index: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, shape or (SIDE, SIDE, 3), dtype=np.uint8)


def image(path: Path, index: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(index)).save(path, format="PPM" if path.suffix == ".ppm" else "JPEG")


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())


def mnist_files(root: Path, name: str, prefixes: dict[str, str]) -> None:
    for index, (prefix, count) in enumerate(zip(prefixes.values(), (4, 3), strict=True)):
        idx(root / name / "raw" / f"{prefix}-images-idx3-ubyte", pixels(index, count, 28, 28))
        idx(root / name / "raw" / f"{prefix}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 2)


def write_mnist(root: Path, name: str) -> None:
    mnist_files(root, name, {"train": "train", "test": "t10k"})


def write_emnist(root: Path, name: str) -> None:
    mnist_files(root, name, {"train": "emnist-balanced-train", "test": "emnist-balanced-test"})


def python2_pickle(entries: dict[str, object]) -> bytes:
    """Write a dict of strings, lists and one array as Python 2 did, which is how CIFAR was published."""
    out = io.BytesIO(b"")
    out.write(b"\x80\x02}q\x01(")
    for key, value in entries.items():
        out.write(b"U" + struct.pack("<B", len(key)) + key.encode())
        if isinstance(value, np.ndarray):
            out.write(b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87R")
            out.write(
                b"(K\x01M" + struct.pack("<H", len(value)) + b"M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
            )
            out.write(b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T")
            out.write(struct.pack("<i", value.nbytes) + value.tobytes() + b"tb")
            continue
        out.write(b"](")
        for item in value:
            out.write(b"K" + bytes([item]) if isinstance(item, int) else b"U" + bytes([len(item)]) + item.encode())
        out.write(b"e")
    out.write(b"u.")
    return out.getvalue()


def write_cifar(root: Path, name: str) -> None:
    import torchvision

    kind = getattr(torchvision.datasets, name)
    folder, labels = root / kind.base_folder, "labels" if name == "CIFAR10" else "fine_labels"
    folder.mkdir()
    for index, (file, _) in enumerate([*kind.train_list, *kind.test_list]):
        entries = {"batch_label": ["a batch"], labels: [0, 1], "data": pixels(index, 2, 3072)}
        (folder / file).write_bytes(python2_pickle(entries))
    names = [f"class {index}" for index in range(10 if name == "CIFAR10" else 100)]
    (folder / kind.meta["filename"]).write_bytes(python2_pickle({kind.meta["key"]: names}))


def write_dtd(root: Path, name: str) -> None:
    for split in ("train", "val", "test"):
        files = [f"{label}/{label}_{split}.jpg" for label in ("banded", "dotted")]
        text(root / "dtd" / "dtd" / "labels" / f"{split}1.txt", "\n".join(files))
        for index, file in enumerate(files):
            image(root / "dtd" / "dtd" / "images" / file, index)


def write_eurosat(root: Path, name: str) -> None:
    for index, label in enumerate(("Forest", "River")):
        image(root / "eurosat" / "2750" / label / f"{label}_1.jpg", index)


def write_aircraft(root: Path, name: str) -> None:
    data = root / "fgvc-aircraft-2013b" / "data"
    text(data / "variants.txt", "707-320\nA 340\n")
    for index, split in enumerate(("train", "val", "test")):
        text(data / f"images_variant_{split}.txt", f"{index}0 707-320\n{index}1 A 340\n")
        for label in range(2):
            image(data / "images" / f"{index}{label}.jpg", label)


def write_flowers(root: Path, name: str) -> None:
    folder = root / "flowers-102"
    for index in range(6):
        image(folder / "jpg" / f"image_{index + 1:05}.jpg", index)
    savemat(folder / "imagelabels.mat", {"labels": [1, 2] * 3})
    savemat(folder / "setid.mat", {"trnid": [1, 2], "valid": [3, 4], "tstid": [5, 6]})


def write_food(root: Path, name: str) -> None:
    for split in ("train", "test"):
        files = {label: [f"{label}/{split}"] for label in ("apple_pie", "waffles")}
        text(root / "food-101" / "meta" / f"{split}.json", json.dumps(files))
        for label in files:
            image(root / "food-101" / "images" / label / f"{split}.jpg")


def write_gtsrb(root: Path, name: str) -> None:
    for label in (0, 1):
        for track, frame in ((0, 0), (0, 1), (1, 0)):
            image(root / "gtsrb" / "GTSRB" / "Training" / f"{label:05}" / f"{track:05}_{frame:05}.ppm", frame)
    image(root / "gtsrb" / "GTSRB" / "Final_Test" / "Images" / "00000.ppm")
    text(root / "gtsrb" / "GT-final_test.csv", "Filename;Width;ClassId\n00000.ppm;32;1\n")


def write_imagenette(root: Path, name: str) -> None:
    for split in ("train", "val"):
        for index, label in enumerate(("n01440764", "n02102040")):
            image(root / "imagenette2" / split / label / f"{label}_{split}.JPEG", index)


def write_pets(root: Path, name: str) -> None:
    for split in ("trainval", "test"):
        pets = [f"Abyssinian_{split}", f"great_pyrenees_{split}"]
        lines = [f"{pet} {label} {label} 1" for label, pet in enumerate(pets, 1)]
        text(root / "oxford-iiit-pet" / "annotations" / f"{split}.txt", "\n".join(lines))
        for pet in pets:
            image(root / "oxford-iiit-pet" / "images" / f"{pet}.jpg")


def write_stl10(root: Path, name: str) -> None:
    folder = root / "stl10_binary"
    folder.mkdir()
    for part, labels in (("train", [1, 2]), ("test", [1, 10])):
        (folder / f"{part}_X.bin").write_bytes(pixels(len(part), 2, 3, 96, 96).tobytes())
        (folder / f"{part}_y.bin").write_bytes(bytes(labels))
    text(folder / "class_names.txt", "\n".join(f"class{index}" for index in range(10)))


def write_svhn(root: Path, name: str) -> None:
    for part in ("train", "test"):
        savemat(root / f"{part}_32x32.mat", {"X": pixels(1, 32, 32, 3, 3), "y": np.array([[10], [1], [9]])})


WRITERS = {
    "CIFAR10": write_cifar,
    "CIFAR100": write_cifar,
    "DTD": write_dtd,
    "EMNIST": write_emnist,
    "EuroSAT": write_eurosat,
    "FGVCAircraft": write_aircraft,
    "FashionMNIST": write_mnist,
    "Flowers102": write_flowers,
    "Food101": write_food,
    "GTSRB": write_gtsrb,
    "Imagenette": write_imagenette,
    "KMNIST": write_mnist,
    "MNIST": write_mnist,
    "OxfordIIITPet": write_pets,
    "STL10": write_stl10,
    "SVHN": write_svhn,
}

#: per set: how many images of which split; labels of the first split; side of the first image
EXPECTED = {
    "CIFAR10": ({"train": 10, "test": 2}, [0, 1] * 5, 32),
    "CIFAR100": ({"train": 2, "test": 2}, [0, 1], 32),
    "DTD": ({"train": 2, "val": 2, "test": 2}, [0, 1], 32),
    "EMNIST": ({"train": 4, "test": 3}, [0, 1, 0, 1], 28),
    "EuroSAT": ({"train": 2}, [0, 1], 32),
    "FGVCAircraft": ({"train": 2, "val": 2, "test": 2}, [0, 1], 32),
    "FashionMNIST": ({"train": 4, "test": 3}, [0, 1, 0, 1], 28),
    "Flowers102": ({"train": 2, "val": 2, "test": 2}, [0, 1], 32),
    "Food101": ({"train": 2, "test": 2}, [0, 1], 32),
    "GTSRB": ({"train": 6, "test": 1}, [0, 0, 0, 1, 1, 1], 32),
    "Imagenette": ({"train": 2, "val": 2}, [0, 1], 32),
    "KMNIST": ({"train": 4, "test": 3}, [0, 1, 0, 1], 28),
    "MNIST": ({"train": 4, "test": 3}, [0, 1, 0, 1], 28),
    "OxfordIIITPet": ({"train": 2, "test": 2}, [0, 1], 32),
    "STL10": ({"train": 2, "test": 2}, [0, 1], 96),
    "SVHN": ({"train": 3, "test": 3}, [0, 1, 9], 32),
}


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Return a function that writes the small files of a set and gives its Dataset; checksums are of the real files."""
    from torchvision.datasets import flowers102, stl10, svhn

    for module in (flowers102, stl10, svhn):
        monkeypatch.setattr(module, "check_integrity", lambda path, md5=None: os.path.exists(path))
    monkeypatch.setattr(stl10.STL10, "_check_integrity", lambda self: True)

    def prepare(name: str):
        WRITERS[name](tmp_path, name)
        return load_plugins().dataset(PREFIX + name)

    return prepare


def test_every_set_has_a_test():
    assert len(TABLE) == 16
    assert {known.name for known in TABLE} == set(WRITERS) == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_small_files_are_read(name, dataset, tmp_path):
    counts, labels, side = EXPECTED[name]
    data = dataset(name).load(tmp_path)
    assert {split: data.splits.count(split) for split in counts} == counts
    assert data.labels[: len(labels)] == labels
    assert len(data.images) == len(data.names) == len(set(data.names)) == sum(counts.values()) == len(data)
    assert len(data.classes) > max(data.labels)
    first = data.images[0]
    array = np.asarray(Image.open(first)) if isinstance(first, Path) else first
    assert array.shape in ((side, side, 3), (side, side))
    assert array.dtype == np.uint8


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_missing_files_name_the_folder_and_the_remedy(name, tmp_path):
    with pytest.raises(InvalidDatasetError, match=rf"(?s)missing or damaged.*{PREFIX}{name} in .*--root.*--download"):
        load_plugins().dataset(PREFIX + name).load(tmp_path)


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_a_root_is_needed(name):
    for function in (load_plugins().dataset(PREFIX + name).load, load_plugins().dataset(PREFIX + name).download):
        with pytest.raises(InvalidDatasetError, match=rf"(?s)the folder.*{PREFIX}{name} without --root"):
            function(None)


def test_signs_digits_and_letters_are_not_mirrored():
    datasets = load_plugins().datasets()
    kept = {name for name in datasets if not datasets[name].hints.horizontal_flip}
    assert kept == {"digits", *(PREFIX + name for name in ("EMNIST", "GTSRB", "KMNIST", "MNIST", "SVHN"))}


def test_emnist_is_turned_upright(dataset, tmp_path):
    data = dataset("EMNIST").load(tmp_path)
    assert np.array_equal(data.images[0], pixels(0, 4, 28, 28)[0].T)


def test_cifar_pixels_are_in_order(dataset, tmp_path):
    data = dataset("CIFAR10").load(tmp_path)
    assert np.array_equal(data.images[0], pixels(0, 2, 3072)[0].reshape(3, 32, 32).transpose(1, 2, 0))
    assert data.classes[9] == "class 9"


def test_gtsrb_tracks_are_groups(dataset, tmp_path):
    data = dataset("GTSRB").load(tmp_path)
    assert list(data.groups[:4]) == ["train/0/00000", "train/0/00000", "train/0/00001", "train/1/00000"]


def test_a_broken_ppm_is_named(dataset, tmp_path):
    data = dataset("GTSRB").load(tmp_path)
    data.images.parts[0].paths[0].write_bytes(b"P6 32 32 255\n123")
    with pytest.raises(InvalidDatasetError, match=r"(?s)unreadable.*00000_00000\.ppm.*--download"):
        data.images[0]


def test_joined_parts_are_a_sequence(dataset, tmp_path):
    images = dataset("MNIST").load(tmp_path).images
    assert np.array_equal(images[-1], images[6])
    assert np.array_equal(np.stack(images[3:5]), np.stack([images[3], images[4]]))
    with pytest.raises(IndexError):
        images[7]


class Canary:
    def __reduce__(self):
        return os.mkdir, (os.environ["AUTOML_PT_CANARY"],)


def test_a_hostile_cifar_file_runs_nothing(dataset, tmp_path, monkeypatch):
    canary = tmp_path / "canary"
    monkeypatch.setenv("AUTOML_PT_CANARY", str(canary))
    hostile = pickle.dumps({"labels": [0, 1], "data": pixels(0, 2, 3072).tobytes(), "x": Canary()})
    pickle.loads(hostile)  # the canary sings when a file is unpickled ...
    canary.rmdir()
    cifar10 = dataset("CIFAR10")
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(hostile)
    assert len(cifar10.load(tmp_path)) == 12
    assert not canary.exists()  # ... and did not


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no pickle", "at position 0, opcode"),
        (pickle.dumps({"labels": [0, 1, 2], "data": b"x" * 3072}), "3072 bytes of pixels, 3 labels"),
        (pickle.dumps({"labels": [11], "data": b"x" * 3072}), "1 labels, 10 classes"),
        (pickle.dumps({"data": b"x" * 3072}), "0 labels"),
    ],
)
def test_a_damaged_cifar_file_is_named(content, said, tmp_path):
    path = tmp_path / "data_batch_1"
    path.write_bytes(content)
    with pytest.raises(InvalidDatasetError, match=rf"(?s)CIFAR's as published.*data_batch_1: .*{said}.*--download"):
        cifar.read_batch(path, 10)


@pytest.mark.parametrize(
    ("names", "said"), [({}, "no 'label_names'"), ({"label_names": ["cat"]}, "fewer than 10 names")]
)
def test_a_damaged_file_of_names_is_named(names, said, tmp_path):
    path = tmp_path / "batches.meta"
    path.write_bytes(pickle.dumps(names))
    with pytest.raises(InvalidDatasetError, match=f"(?s)batches.meta: {said}"):
        cifar.class_names(path, "label_names")


@pytest.mark.parametrize(("name", "module"), [("CIFAR10", "utils"), ("EuroSAT", "eurosat")])
def test_a_download_that_fails_says_so(name, module, tmp_path, monkeypatch):
    def offline(*arguments, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(f"torchvision.datasets.{module}.download_and_extract_archive", offline)
    with pytest.raises(InvalidDatasetError, match=rf"(?s)downloaded completely.*{name} into .*no route.*--download"):
        load_plugins().dataset(PREFIX + name).download(tmp_path)


def test_a_download_fetches_nothing_twice(dataset, tmp_path):
    for name in ("CIFAR10", "MNIST"):
        wanted = dataset(name)
        wanted.download(tmp_path)
        assert len(wanted.load(tmp_path)) > 0
