from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_pool_file import write

from automl_pt.cli.cache import command
from automl_pt.core.errors import ConfigError
from automl_pt.data.cache.disk import LIMIT_VARIABLE, limit, list_caches

#: the name of an unpacked archive: its sha256
ARCHIVE = "0a" * 32


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a cache folder with caches used 1, 2 and 3 days ago, of 10, 20 and 30 images, and a damaged one."""
    pixels = tmp_path / "pixels"
    pixels.mkdir()
    for days in (1, 2, 3):
        path = pixels / f"{days}.pixels"
        write(path, 10 * days, 4)
        path.with_suffix(".json").write_text("[]")
        used = time.time() - days * 24 * 3600 + 60
        os.utime(path, (used, used))
        os.utime(path.with_suffix(".json"), (used, used))
    (pixels / "4.pixels").write_bytes(b"damaged")
    (tmp_path / "hashes").mkdir()
    (tmp_path / "hashes" / f"{'0a' * 16}.json").write_text("{}")
    (tmp_path / "archives" / ARCHIVE / "cat").mkdir(parents=True)
    (tmp_path / "archives" / ARCHIVE / "cat" / "1.png").write_bytes(b"1")
    for left in (f"{ARCHIVE}.json", f"{ARCHIVE}.lock", f".{ARCHIVE}.json.7.0a.tmp"):
        (tmp_path / "archives" / left).write_text("{}")
    return tmp_path


def run(runner: CliRunner, *arguments: str) -> str:
    result = runner.invoke(command, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


def test_list_shows_the_caches_used_last_first(runner: CliRunner, folder: Path) -> None:
    lines = run(runner, "list", "--cache-dir", str(folder)).splitlines()
    assert lines[0].split() == ["cache", "holds", "images", "side", "size", "last", "used"]
    assert [line.split()[:4] for line in lines[1:-1]] == [
        ["4", "pixels", "damaged", "-"],
        ["1", "pixels", "10", "4"],
        ["2", "pixels", "20", "4"],
        ["3", "pixels", "30", "4"],
    ]
    assert lines[-1] == f"4 caches, 0.0 MB in {folder / 'pixels'}"
    rows = json.loads(run(runner, "list", "--json", "--cache-dir", str(folder)))
    assert [row["images"] for row in rows] == [None, 10, 20, 30]
    assert rows[1]["bytes"] == (folder / "pixels" / "1.pixels").stat().st_size


def test_no_cache_is_an_empty_list(runner: CliRunner, tmp_path: Path) -> None:
    assert run(runner, "list", "--cache-dir", str(tmp_path)).startswith("0 caches, 0.0 MB in")


def test_prune_removes_the_damaged_the_unused_and_what_is_beyond_the_size(runner: CliRunner, folder: Path) -> None:
    def left() -> list[int | None]:
        return [cache.count for cache in list_caches(folder / "pixels")]

    assert "1 caches removed" in run(runner, "prune", "--cache-dir", str(folder))
    assert left() == [10, 20, 30]
    removed = json.loads(run(runner, "prune", "--json", "--unused", "2.5", "--cache-dir", str(folder)))
    assert [row["images"] for row in removed] == [30]
    size = (folder / "pixels" / "1.pixels").stat().st_size
    run(runner, "prune", "--max-size", str(size / 1e9), "--cache-dir", str(folder))
    assert left() == [10]
    assert sorted(path.name for path in (folder / "pixels").iterdir()) == ["1.json", "1.pixels"]


def test_clear_removes_everything_of_ours(runner: CliRunner, folder: Path) -> None:
    (folder / "other").mkdir()
    assert "4 caches removed" in run(runner, "clear", "--cache-dir", str(folder))
    assert sorted(path.name for path in folder.rglob("*")) == ["archives", "hashes", "other", "pixels"]


def test_clear_leaves_the_files_of_others_in_folders_called_like_ours(runner: CliRunner, folder: Path) -> None:
    (folder / "archives" / "photos-2019").mkdir()
    others = [folder / "archives" / "photos-2019" / "1.png", folder / "hashes" / "passwords.json"]
    for path in others:
        path.write_text("not ours")
    run(runner, "clear", "--cache-dir", str(folder))
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == sorted(others)


def test_the_environment_names_folder_and_limit(
    runner: CliRunner, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOML_PT_CACHE", str(folder))
    assert "4 caches" in run(runner, "list")
    monkeypatch.setenv(LIMIT_VARIABLE, "1.5")
    assert limit(folder) == 1_500_000_000
    monkeypatch.delenv(LIMIT_VARIABLE)
    assert limit(folder) > 0
    for wrong in ("many", "-1", "nan", "inf"):
        monkeypatch.setenv(LIMIT_VARIABLE, wrong)
        with pytest.raises(ConfigError, match="must be a number of gigabytes, got"):
            limit(folder)
