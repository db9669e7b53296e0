from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from automl_pt.data import hashes
from automl_pt.data.hashes import HashIndex
from automl_pt.images.decode import UnreadableImage


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust files of any age: those of a test are new."""
    monkeypatch.setattr(hashes, "SETTLED_NS", -1)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    paths = {name: tmp_path / name for name in ("a", "b", "c")}
    for name, path in paths.items():
        path.write_text(name)
    return paths


def test_an_unchanged_file_is_read_once(files: dict[str, Path], tmp_path: Path) -> None:
    index = HashIndex(tmp_path / "index.json")
    first = index.digests(files, threads=2)
    assert first == {name: hashlib.sha256(name.encode()).hexdigest() for name in files}
    assert index.read_files == 3
    index.save()
    again = HashIndex(tmp_path / "index.json")
    assert again.digests(files, threads=2) == first
    assert again.read_files == 0


def test_a_changed_file_is_read_again_even_with_its_old_time(files: dict[str, Path], tmp_path: Path) -> None:
    index = HashIndex(tmp_path / "index.json")
    index.digests(files, threads=1)
    status = files["b"].stat()
    files["b"].write_text("B")
    os.utime(files["b"], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert index.digests(files, threads=1)["b"] == hashlib.sha256(b"B").hexdigest()
    assert index.read_files == 4


def test_a_file_that_changed_a_moment_ago_is_not_trusted(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashes, "SETTLED_NS", 10**12)
    index = HashIndex(tmp_path / "index.json")
    index.digests(files, threads=1)
    index.digests(files, threads=1)
    assert index.read_files == 6


def test_files_that_cannot_be_read_give_their_errors(files: dict[str, Path], tmp_path: Path) -> None:
    files["b"].unlink()
    os.mkfifo(files["b"])
    found = HashIndex(tmp_path / "index.json").digests({**files, "d": tmp_path / "d"}, threads=2)
    assert isinstance(found["a"], str)
    assert isinstance(found["b"], UnreadableImage)
    assert isinstance(found["d"], UnreadableImage)
    assert "No such file" in found["d"].reason


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 9, "files": {}}', '{"format": 1, "files": {"a": 3}}'])
def test_a_damaged_index_counts_as_empty(files: dict[str, Path], tmp_path: Path, content: str) -> None:
    (tmp_path / "index.json").write_text(content)
    index = HashIndex(tmp_path / "index.json")
    assert index.known == {}
    assert len(index.digests(files, threads=1)) == 3


def test_progress_is_told(files: dict[str, Path], tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    HashIndex(tmp_path / "i").digests(files, threads=1, progress=lambda *step: told.append(step))
    assert told == [("hashing", 1, 3), ("hashing", 2, 3), ("hashing", 3, 3)]
