from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from automl_pt.data.cache.pool_file import DamagedPool, PoolWriter, file_size, open_pool


def write(path: Path, count: int, side: int, unreadable: dict[str, str] | None = None) -> tuple[np.ndarray, list[str]]:
    images = np.random.default_rng(count).integers(0, 256, (count, 3, side, side), dtype=np.uint8)
    digests = [f"{(index * 7919) % 1009:064x}" for index in range(count)]
    with open(path, "wb") as stream:
        writer = PoolWriter(stream, side)
        for digest, image in zip(digests, images, strict=True):
            writer.add(digest, image)
        writer.unreadable.update(unreadable or {})
        writer.finish()
    return images, digests


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 20),
    st.integers(1, 9),
    st.dictionaries(st.text("0123456789abcdef", min_size=64), st.text(), max_size=3),
)
def test_images_survive_the_disk(tmp_path: Path, count: int, side: int, unreadable: dict[str, str]) -> None:
    path = tmp_path / "x.pixels"
    images, digests = write(path, count, side, unreadable)
    pool = open_pool(path, image_size=side, verify=True)
    assert (pool.images == images).all()
    assert pool.unreadable == unreadable
    assert pool.rows(digests[::-1]).tolist() == list(range(count))[::-1]
    assert pool.rows(["f" * 64]).tolist() == [-1]
    assert path.stat().st_size <= file_size(count, side) + 1000
    assert count == 0 or not pool.images.flags.writeable


def test_every_flip_and_truncation_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.pixels"
    write(path, 3, 4, {"0" * 64: "truncated"})
    content = path.read_bytes()
    for place in range(0, len(content), 5):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        with pytest.raises(DamagedPool):
            open_pool(path, verify=True)
    for length in range(0, len(content), 11):
        path.write_bytes(content[:length])
        with pytest.raises(DamagedPool):
            open_pool(path)
    path.write_bytes(content + b"x")
    with pytest.raises(DamagedPool):
        open_pool(path)


@pytest.mark.parametrize(("name", "value"), [("RULE", "another rule"), ("FORMAT", 99)])
def test_a_cache_of_another_rule_or_version_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    write(tmp_path / "x.pixels", 2, 4)
    with pytest.raises(DamagedPool, match="another size"):
        open_pool(tmp_path / "x.pixels", image_size=5)
    monkeypatch.setattr(f"automl_pt.data.cache.pool_file.{name}", value)
    with pytest.raises(DamagedPool, match="another version or rule"):
        open_pool(tmp_path / "x.pixels")


def test_no_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_pool(tmp_path / "x.pixels")
