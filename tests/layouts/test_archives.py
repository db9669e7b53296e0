from __future__ import annotations

import gzip
import io
import os
import shutil
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from conftest import draw_image

from automl_pt.core.errors import InvalidDatasetError, OutputError
from automl_pt.layouts import archives
from automl_pt.layouts.archives import extract
from automl_pt.layouts.layouts import open_path
from automl_pt.layouts.tar import MAX_READ


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUTOML_PT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def image(index: int) -> bytes:
    content = io.BytesIO()
    draw_image(0, index, 8).save(content, "PNG")
    return content.getvalue()


GOOD = {"a/1.png": image(1), "b/2.png": image(2), "b/3.png": image(3)}


def write_zip(path: Path, files: dict[str, bytes], *, stored: bool = False) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, files: dict[str, bytes], extra: Iterable[tarfile.TarInfo] = ()) -> Path:
    mode = {".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2"}.get(path.suffix, "w")
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in extra:
            archive.addfile(member)
    return path


@pytest.mark.parametrize("name", ["d.zip", "d.tar", "d.tar.gz", "d.TGZ", "d.tar.bz2", "d.tbz2"])
@pytest.mark.parametrize("wrapper", ["", "photos/", "./", "./photos/"])
def test_every_kind_of_archive_gives_the_same_images(tmp_path: Path, name: str, wrapper: str) -> None:
    junk = {"__MACOSX/a/._1.png": b"x", ".DS_Store": b"x"}
    files = {f"{wrapper}{member}": content for member, content in {**GOOD, **junk}.items()}
    write = write_zip if name.endswith("zip") else write_tar
    data = open_path(write(tmp_path / name, files))
    assert data.names == tuple(GOOD)
    assert [Path(path).read_bytes() for path in data.images] == list(GOOD.values())
    assert data.classes == ("a", "b")
    assert [name for name, _ in data.left_out] == sorted(junk)


def test_an_archive_is_unpacked_once_per_content_and_again_when_damaged(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "d.zip", GOOD)
    folder = extract(archive)
    before = (folder / "a/1.png").stat()
    shutil.move(archive, tmp_path / "renamed.zip")
    assert extract(tmp_path / "renamed.zip") == folder
    assert (folder / "a/1.png").stat().st_ino == before.st_ino
    os.truncate(folder / "b/3.png", 3)
    assert (extract(tmp_path / "renamed.zip") / "b/3.png").read_bytes() == GOOD["b/3.png"]
    (folder / "b/2.png").unlink()
    assert (extract(tmp_path / "renamed.zip") / "b/2.png").read_bytes() == GOOD["b/2.png"]


def test_nothing_half_done_stays_behind(tmp_path: Path, cache: Path) -> None:
    archive = write_tar(tmp_path / "d.tar", {**GOOD, "../x.png": b"x"})
    with pytest.raises(InvalidDatasetError):
        extract(archive)
    assert [path.suffix for path in (cache / "archives").iterdir()] == [".lock"]


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


HOSTILE_NAMES = [
    "../x.png",
    "a/../../x.png",
    "/etc/x.png",
    "C:/x.png",
    "C:x.png",
    "a\\..\\x.png",
    "..",
    "\\\\host\\x.png",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_no_path_leaves_the_folder(tmp_path: Path, name: str, kind: str) -> None:
    files = {**GOOD, name: b"x"}
    archive = write_zip(tmp_path / "d.zip", files) if kind == "zip" else write_tar(tmp_path / "d.tar", files)
    with pytest.raises(InvalidDatasetError, match="a path that may lead out of the folder"):
        extract(archive)
    assert not list(tmp_path.rglob("x.png"))


@pytest.mark.parametrize(
    "bad",
    [
        member("a/link.png", tarfile.SYMTYPE, "/etc/passwd"),
        member("a", tarfile.SYMTYPE, "/tmp"),
        member("a/hard.png", tarfile.LNKTYPE, "a/1.png"),
        member("a/pipe.png", tarfile.FIFOTYPE),
        member("a/device.png", tarfile.CHRTYPE),
        member("a/sparse.png", tarfile.GNUTYPE_SPARSE),
    ],
    ids=lambda info: info.name,
)
def test_no_links_or_devices_in_tar(tmp_path: Path, bad: tarfile.TarInfo) -> None:
    with pytest.raises(InvalidDatasetError, match="a link, device or sparse file|intact"):
        extract(write_tar(tmp_path / "d.tar", GOOD, [bad]))


def test_no_links_in_zip(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "d.zip", GOOD)
    info = zipfile.ZipInfo("a/link.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as content:
        content.writestr(info, "/etc/passwd")
    with pytest.raises(InvalidDatasetError, match="a/link.png is a link or device"):
        extract(archive)


def test_encrypted_members_are_refused(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "d.zip", {"a/1.png": b"x"}, stored=True)
    content = bytearray(archive.read_bytes())
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(magic) + at] |= 1
    archive.write_bytes(bytes(content))
    with pytest.raises(InvalidDatasetError, match="encrypted"):
        extract(archive)


@pytest.mark.parametrize("names", [("a/X.png", "a/x.png"), ("a/\u00e9.png", "a/e\u0301.png")])
def test_names_that_some_systems_do_not_tell_apart_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    with pytest.raises(InvalidDatasetError, match="a name that some systems cannot distinguish from"):
        extract(write_zip(tmp_path / "d.zip", {**GOOD, **dict.fromkeys(names, b"x")}))


def test_the_same_name_twice_is_refused(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "d.tar", GOOD, [tarfile.TarInfo("a/1.png")])
    with pytest.raises(InvalidDatasetError, match="cannot distinguish from a/1.png"):
        extract(archive)


@pytest.mark.parametrize("name", ["d.zip", "d.tar.gz", "d.tar.bz2"])
def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(archives, "FREE_BYTES", 100_000)
    files = {"a/1.png": bytes(4_000_000), "b/1.png": b"x"}
    archive = (write_zip if name.endswith("zip") else write_tar)(tmp_path / name, files)
    with pytest.raises(InvalidDatasetError, match="more than its packed size allows|bytes"):
        extract(archive)


def test_a_zip_that_lies_about_sizes_is_refused(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "d.zip", {"a/1.png": bytes(3_000_000)})
    content = bytearray(archive.read_bytes())
    local, central = content.index(b"PK\x03\x04"), content.index(b"PK\x01\x02")
    struct.pack_into("<I", content, local + 22, 10)
    struct.pack_into("<I", content, central + 24, 10)
    archive.write_bytes(bytes(content))
    with pytest.raises(InvalidDatasetError, match="damaged|longer than its header says"):
        extract(archive)


def test_too_many_and_too_large_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 10)
    with pytest.raises(InvalidDatasetError, match="more than the limit of 10 for one file"):
        extract(write_zip(tmp_path / "d.zip", GOOD))
    monkeypatch.undo()
    monkeypatch.setenv("AUTOML_PT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(archives, "MAX_MEMBERS", 2)
    for archive in (write_zip(tmp_path / "e.zip", GOOD), write_tar(tmp_path / "e.tar", GOOD)):
        with pytest.raises(InvalidDatasetError, match="the archive holds more than 2 files"):
            extract(archive)


def test_an_overlong_tar_header_is_not_read_into_memory(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 60 * 2**20
    path = tmp_path / "d.tar.gz"
    with gzip.open(path, "wb") as stream:
        stream.write(header.tobuf())
        stream.write(bytes(60 * 2**20))
    tracemalloc.start()
    with pytest.raises(InvalidDatasetError, match="a header of 62,914,560 bytes"):
        extract(path)
    assert tracemalloc.get_traced_memory()[1] < 2 * MAX_READ
    tracemalloc.stop()


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def zeroed(content: bytes) -> bytes:
    half = len(content) // 2
    return content[:half] + bytes(100) + content[half + 100 :]


@pytest.mark.parametrize("name", ["d.zip", "d.tar.gz", "d.tar.bz2"])
@pytest.mark.parametrize("damage", [cut, zeroed, lambda content: b"", lambda content: b"junk" * 300])
def test_damaged_archives_are_refused(tmp_path: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    big = {f"a/{index}.png": os.urandom(3000) for index in range(9)}
    archive = (write_zip if name.endswith("zip") else write_tar)(tmp_path / name, big)
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(InvalidDatasetError, match="the archive is damaged") as caught:
        extract(archive)
    assert "download or create it again" in str(caught.value)


@pytest.mark.parametrize("blocks", [1, 2, 3, 5])
def test_a_tar_cut_between_members_is_refused(tmp_path: Path, blocks: int) -> None:
    files = {f"a/{index}.png": b"x" * 512 for index in range(4)}
    archive = write_tar(tmp_path / "d.tar", files)
    archive.write_bytes(archive.read_bytes()[: blocks * 512])
    with pytest.raises(InvalidDatasetError, match="the archive is damaged"):
        extract(archive)


def test_damage_in_a_later_tar_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "d.tar", {f"a/{index}.png": b"x" * 512 for index in range(4)})
    content = bytearray(archive.read_bytes())
    content[2048] ^= 0xFF
    archive.write_bytes(bytes(content))
    with pytest.raises(InvalidDatasetError, match="the end mark is missing"):
        extract(archive)


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("AUTOML_PT_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="the output cannot be written"):
        extract(write_zip(tmp_path / "d.zip", GOOD))
