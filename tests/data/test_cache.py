from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import noise_files

from automl_pt.core.errors import InvalidDatasetError, OutputError
from automl_pt.core.files import sha256_file
from automl_pt.data.cache import cache as cache_module
from automl_pt.data.cache import disk as cache_disk
from automl_pt.data.cache.cache import Cache, cache_key, opened
from automl_pt.data.hashes import array_digest
from automl_pt.data.pixels import Originals, Undecoded
from automl_pt.images.decode import decode

SIDE = 8


def originals_of(files: list[Path]) -> tuple[Originals, list[str]]:
    digests = [sha256_file(path) for path in files]
    return Originals(files, list(map(str, files)), {digest: place for place, digest in enumerate(digests)}), digests


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return noise_files(tmp_path / "images", 12)


def test_the_cache_round_trips_and_a_second_use_decodes_nothing(files: list[Path], tmp_path: Path) -> None:
    originals, digests = originals_of(files)
    wanted = np.stack([decode(path, SIDE) for path in files])
    first, second = (Cache(tmp_path / "cache", threads=2) for _ in range(2))
    for cache in (first, second):
        found = cache.images(originals, digests, SIDE, unreadable={})
        assert (np.asarray(found.view(digests)) == wanted).all()
        assert (found.view(digests[::-1])[np.array([0, 2])] == wanted[::-1][[0, 2]]).all()
        assert found.unreadable == {}
    assert (first.decoded, second.decoded) == (12, 0)


def test_unreadable_contents_are_told_and_remembered(files: list[Path], tmp_path: Path) -> None:
    files[3].write_bytes(files[3].read_bytes()[:-40])
    originals, digests = originals_of(files)
    for decoded in (12, 0):
        cache = Cache(tmp_path / "cache")
        found = cache.images(originals, digests, SIDE, unreadable={})
        assert list(found.unreadable) == [digests[3]]
        assert cache.decoded == decoded
    rest = digests[:3] + digests[4:]
    assert found.view(rest).shape == (11, 3, SIDE, SIDE)
    # known beforehand, as from a manifest: the same cache, and the file need not be there
    files[3].unlink()
    del originals.index[digests[3]]  # type: ignore[attr-defined]
    again = Cache(tmp_path / "other").images(originals, digests, SIDE, unreadable={digests[3]: "torn"})
    assert again.unreadable == {digests[3]: "torn"}


def test_images_that_another_cache_holds_are_not_decoded_again(files: list[Path], tmp_path: Path) -> None:
    originals, digests = originals_of(files)
    Cache(tmp_path / "cache").images(originals, digests[:9], SIDE, unreadable={})
    more, other_size = Cache(tmp_path / "cache"), Cache(tmp_path / "cache")
    found = more.images(originals, digests, SIDE, unreadable={})
    assert more.decoded == 3
    assert (np.asarray(found.view(digests)) == np.stack([decode(path, SIDE) for path in files])).all()
    other_size.images(originals, digests, SIDE + 1, unreadable={})
    assert other_size.decoded == 12


@pytest.mark.parametrize("harm", ["flip", "truncate", "foreign", "empty", "another's", "flip a digest"])
def test_a_stale_truncated_or_foreign_cache_is_noticed_and_built_again(
    files: list[Path], tmp_path: Path, harm: str
) -> None:
    originals, digests = originals_of(files)
    Cache(tmp_path / "cache").images(originals, digests, SIDE, unreadable={})
    path = tmp_path / "cache" / f"{cache_key(digests, SIDE)}.pixels"
    content = bytearray(path.read_bytes())
    if harm == "flip":
        content[100] ^= 4
    elif harm == "flip a digest":
        content[12 * 3 * SIDE * SIDE + 5] ^= 1
    elif harm == "another's":
        Cache(tmp_path / "second").images(originals, digests[:4], SIDE, unreadable={})
        content[:] = (tmp_path / "second" / f"{cache_key(digests[:4], SIDE)}.pixels").read_bytes()
    path.write_bytes({"truncate": content[:-3], "foreign": b"hello", "empty": b""}.get(harm, content))
    again = Cache(tmp_path / "cache")
    found = again.images(originals, digests, SIDE, unreadable={})
    assert again.decoded == 12
    assert (np.asarray(found.view(digests)) == np.stack([decode(path, SIDE) for path in files])).all()


def test_a_copied_cache_is_compared_with_its_checksum_once(files: list[Path], tmp_path: Path) -> None:
    originals, digests = originals_of(files)
    Cache(tmp_path / "cache").images(originals, digests, SIDE, unreadable={})
    path = tmp_path / "cache" / f"{cache_key(digests, SIDE)}.pixels"
    copy = tmp_path / "copy" / path.name
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    assert not cache_disk.mark_path(copy).exists()
    assert opened(copy, SIDE, digests) is not None
    assert cache_disk.mark_path(copy).exists()


def test_a_file_that_changes_while_it_is_decoded_is_an_error(files: list[Path], tmp_path: Path) -> None:
    originals, digests = originals_of(files)
    files[5].write_bytes(files[4].read_bytes())
    with pytest.raises(InvalidDatasetError, match="changed while it was read") as caught:
        Cache(tmp_path / "cache").images(originals, digests, SIDE, unreadable={})
    assert str(files[5]) in caught.value.given
    assert not list((tmp_path / "cache").glob("*.pixels"))


def test_a_folder_that_was_asked_for_and_has_no_room_is_an_error_before_any_work(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOML_PT_CACHE_LIMIT", "0.000001")
    originals, digests = originals_of(files)
    cache = Cache(tmp_path / "cache", required=True)
    with pytest.raises(OutputError, match="the cache folder has no space for the decoded images") as caught:
        cache.images(originals, digests, SIDE, unreadable={})
    assert cache.decoded == 0
    assert "needed" in caught.value.given
    assert "AUTOML_PT_CACHE_LIMIT" in caught.value.remedy
    assert "--cache-dir" in caught.value.remedy


def test_a_full_disk_is_told_before_any_work(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_disk, "RESERVE", 1 << 60)
    originals, digests = originals_of(files)
    with pytest.raises(OutputError, match="free") as caught:
        Cache(tmp_path / "cache", required=True).images(originals, digests, SIDE, unreadable={})
    assert "0.0 MB free" in caught.value.given
    assert caught.value.remedy.startswith("free some space")


@pytest.mark.parametrize("share", [0.25, 0.0])
def test_without_room_images_stay_in_memory_or_are_decoded_anew_and_this_is_said(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    monkeypatch.setenv("AUTOML_PT_CACHE_LIMIT", "0")
    monkeypatch.setattr(cache_module, "MEMORY_SHARE", share)
    files[3].write_bytes(b"")
    originals, digests = originals_of(files)
    cache = Cache(tmp_path / "cache", threads=2)
    found = cache.images(originals, digests, SIDE, unreadable={})
    assert list(found.unreadable) == [digests[3]]
    rest = [digest for digest in digests if digest != digests[3]]
    images = found.view(rest)
    wanted = np.stack([decode(path, SIDE) for path in files if path != files[3]])
    assert (images[np.arange(11)] == wanted).all()
    assert (images[4] == wanted[4]).all()
    assert isinstance(images, Undecoded) == (share == 0.0)
    how = "decoded again for each batch" if share == 0.0 else "kept in this process's memory"
    assert len(cache.notes) == 1
    assert how in cache.notes[0]
    assert "no cache on disk" in cache.notes[0]


def test_a_folder_that_cannot_be_written_falls_back_too(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    originals, digests = originals_of(files)
    cache = Cache(tmp_path / "file" / "cache")
    assert np.asarray(cache.images(originals, digests, SIDE, unreadable={}).view(digests)).shape[0] == 12
    assert "no cache on disk" in cache.notes[0]
    with pytest.raises(OutputError):
        Cache(tmp_path / "file" / "cache", required=True).images(originals, digests, SIDE, unreadable={})


def test_idle_caches_make_room_for_a_new_one(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    originals, digests = originals_of(files)
    folder = tmp_path / "cache"
    Cache(folder).images(originals, digests[:6], SIDE, unreadable={})
    monkeypatch.setenv("AUTOML_PT_CACHE_LIMIT", "0.000007")
    with pytest.raises(OutputError):
        Cache(folder, required=True).images(originals, digests[6:], SIDE + 1, unreadable={})
    old = time.time() - 2 * cache_disk.IDLE
    for path in folder.iterdir():
        os.utime(path, (old, old))
    cache = Cache(folder, required=True)
    cache.images(originals, digests[6:], SIDE + 1, unreadable={})
    assert cache.notes == ["1 caches unused for a day were removed to free space (0.0 MB)"]
    assert [found.image_size for found in cache_disk.list_caches(folder)] == [SIDE + 1]


def test_concurrent_builders_do_the_work_once(files: list[Path], tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; sys.path[:0] = sys.argv[3:]\n"
        "from test_cache import *\n"
        "originals, digests = originals_of(sorted(Path(sys.argv[1]).iterdir()))\n"
        "cache = Cache(Path(sys.argv[2]))\n"
        "cache.images(originals, digests, SIDE, unreadable={})\n"
        "print(cache.decoded)"
    )
    command = [
        sys.executable,
        "-c",
        code,
        str(files[0].parent),
        str(tmp_path / "cache"),
        str(Path(__file__).parent),
        str(Path(__file__).parents[1]),  # where conftest is
    ]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    decoded = [int(process.communicate(timeout=120)[0]) for process in processes]
    assert sorted(decoded) == [0, 0, 12]


def test_arrays_go_the_same_way(tmp_path: Path) -> None:
    arrays = list(np.random.default_rng(0).integers(0, 256, (5, 8, 8), dtype=np.uint8))
    digests = [array_digest(array) for array in arrays]
    originals = Originals(arrays, ["?"] * 5, {digest: place for place, digest in enumerate(digests)})
    found = Cache(tmp_path).images(originals, digests, SIDE, unreadable={})
    assert (np.asarray(found.view(digests))[:, 0] == np.stack(arrays)).all()


def test_a_killed_builders_remains_are_removed(files: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    remains = folder / f".x.pixels.{dead.pid}.abcd.tmp"
    remains.write_bytes(b"half")
    originals, digests = originals_of(files)
    Cache(folder).images(originals, digests, SIDE, unreadable={})
    assert not remains.exists()


def test_a_cache_folder_that_cannot_be_used_is_told_with_the_ways_to_name_another(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    files = noise_files(tmp_path / "images", 2)
    digests = [sha256_file(path) for path in files]
    originals = Originals(files, list(map(str, files)), {digest: at for at, digest in enumerate(digests)})
    with pytest.raises(
        OutputError, match=r"(?s)file/pixels.*choose another cache folder with --cache-dir or AUTOML_PT_CACHE"
    ):
        Cache(tmp_path / "file" / "pixels", required=True).images(originals, digests, 8, unreadable={})
    with_notes = Cache(tmp_path / "file" / "pixels")
    assert with_notes.images(originals, digests, 8, unreadable={}).view(digests).shape == (2, 3, 8, 8)
    assert with_notes.notes[0].endswith("or choose another cache folder with --cache-dir or AUTOML_PT_CACHE")
