from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from automl_pt.core.errors import OutputError
from automl_pt.core.files import atomic_file, atomic_write, make_folder, output_error, read_json, to_json, write_json


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_write(path, "old")
    with atomic_file(path) as stream:
        stream.write(b"new")
        stream.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["file"]


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_write(path, "old")
    with pytest.raises(RuntimeError), atomic_file(path) as stream:  # noqa: PT012  # the block is what is tested
        stream.write(b"half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_what_cannot_be_synced_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    path = tmp_path / "file"
    atomic_write(path, "old")

    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OutputError, match=os.strerror(number)):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_full_disk_behind_another_error_is_named(tmp_path: Path) -> None:
    # what torch.save does when the disk fills up within a large tensor
    def save() -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        finally:
            raise RuntimeError("unexpected pos 64 vs 0")

    with pytest.raises(OutputError, match="No space left on device"), atomic_file(tmp_path / "file"):
        save()
    assert os.listdir(tmp_path) == []


def test_temporary_files_of_dead_writers_are_removed(tmp_path: Path) -> None:
    dead = tmp_path / ".file.999999999.abcd.tmp"
    alive = tmp_path / f".file.{os.getpid()}.abcd.tmp"
    dead.touch()
    alive.touch()
    make_folder(tmp_path)
    assert os.listdir(tmp_path) == [alive.name]


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space and run the same command again"),
        (errno.EDQUOT, "free some of your quota"),
        (errno.EROFS, "choose a folder on a writable file system"),
        (errno.EACCES, "choose a folder you may write to"),
        (errno.EPERM, "choose a folder you may write to"),
        (errno.ENOTDIR, "a part of the path is a file"),
        (errno.EEXIST, "a file of that name exists"),
        (errno.EIO, "check the disk and the path"),
    ],
)
def test_each_reason_has_its_remedy(number: int, remedy: str) -> None:
    message = str(output_error(OSError(number, "x"), Path("out")))
    assert message.startswith("the output cannot be written\n  given: out: ")
    assert remedy in message


def test_a_file_in_the_way_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="choose another folder"):
        make_folder(tmp_path / "file" / "below")


def test_json_has_no_nan_and_survives_any_name(tmp_path: Path) -> None:
    value = {"loss": float("nan"), "losses": [1.0, float("inf")], "name": "\udcff\n<b>"}
    assert "NaN" not in to_json(value)
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == {"loss": None, "losses": [1.0, None], "name": "\udcff\n<b>"}
