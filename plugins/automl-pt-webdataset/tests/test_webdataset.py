import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from automl_pt.config import TrainConfig, make
from automl_pt.core.errors import InvalidDatasetError, NotLabeledDatasetError
from automl_pt.data.prepare import prepare
from automl_pt.plugins.manager import load_plugins
from automl_pt.testing import check_dataset
from automl_pt_webdataset import load


def png(shade: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((9, 7, 3), shade, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def write_shard(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as shard:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    return path


def samples(start: int, count: int) -> dict[str, bytes]:
    files = {}
    for index in range(start, start + count):
        files[f"{index:04}.png"], files[f"{index:04}.cls"] = png(20 * index % 256), str(index % 2).encode()
    return files


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    write_shard(tmp_path / "train-000000.tar", samples(0, 4))
    write_shard(tmp_path / "train-000001.tar", samples(4, 4))
    write_shard(tmp_path / "val-000000.tar", samples(8, 4))
    return tmp_path


def test_it_keeps_the_contract(shards):
    check_dataset("webdataset", root=shards)


def test_labels_splits_names_and_images(shards):
    data = load(shards)
    assert list(data.labels) == [index % 2 for index in range(12)]
    assert data.classes == ["0", "1"]
    assert data.splits == ["train"] * 8 + ["val"] * 4
    assert data.names[4] == "train-000001.tar/0004"
    assert [int(data.images[index][0, 0, 0]) for index in range(12)] == [20 * index % 256 for index in range(12)]


def test_class_names_from_a_list_and_from_labels(shards, tmp_path):
    (shards / "classes.txt").write_text("cat\ndog\n")
    assert load(shards).classes == ["cat", "dog"]
    (shards / "classes.txt").write_text("cat\n")
    with pytest.raises(InvalidDatasetError, match=r"(?s)names every class.*1 lines, and the label 1.*add the missing"):
        load(shards)
    (tmp_path / "named").mkdir()
    write_shard(tmp_path / "named" / "a.tar", {"x.png": png(1), "x.cls": b"owl\n", "y.png": png(2), "y.cls": b"ant"})
    data = load(tmp_path / "named")
    assert (data.classes, list(data.labels), data.splits) == (["ant", "owl"], [1, 0], None)


def test_a_pickle_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(pickle, "loads", lambda *_: pytest.fail("unpickled"))
    files = samples(0, 4) | {"0000.pyd": b"cos\nsystem\n(S'false'\ntR.", "0001.pth": pickle.dumps([1])}
    write_shard(tmp_path / "a.tar", files)
    check_dataset("webdataset", root=tmp_path)


def test_an_image_without_a_label_is_left_out(tmp_path):
    write_shard(tmp_path / "a.tar", samples(0, 4) | {"more.png": png(3)})
    data = load(tmp_path)
    assert len(data) == 4
    assert data.left_out == [("a.tar/more", "no .cls beside it")]


def test_no_labels_at_all(tmp_path):
    write_shard(tmp_path / "a.tar", {"x.png": png(1)})
    with pytest.raises(NotLabeledDatasetError, match=r"(?s)need labels.*1 images in .*a\.tar.*write the class"):
        load(tmp_path)


def test_a_shard_cut_short(shards):
    whole = (shards / "val-000000.tar").read_bytes()
    (shards / "val-000000.tar").write_bytes(whole[:2000])
    with pytest.raises(InvalidDatasetError, match=r"(?s)a whole tar file.*val-000000\.tar.*write the shard again"):
        load(shards)


@pytest.mark.parametrize("packed", [False, True])
def test_no_shards(tmp_path, packed):
    if packed:
        (tmp_path / "a.tar.gz").write_bytes(b"")
    said = r"a\.tar\.gz" if packed else "needs a folder"
    with pytest.raises(InvalidDatasetError, match=rf"(?s)not packed further.*{said if packed else 'root'}.*--root"):
        load(tmp_path)


def test_a_damaged_image_counts_as_unreadable(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOML_PT_CACHE", str(tmp_path / "cache"))
    write_shard(tmp_path / "a.tar", samples(0, 20) | {"0000.png": b"no image"})
    settings = {"dataset": "webdataset", "root": str(tmp_path), "image_size": 8, "max_bad": 0.2}
    data = prepare(make(TrainConfig, settings), load_plugins(), manifest=tmp_path / "manifest.json")
    assert sum(data.manifest.counts().values()) == 19
    assert "a.tar/0000" in str(data.manifest.left_out)
