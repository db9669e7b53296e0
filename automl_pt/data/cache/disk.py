"""Lists, limits and prunes the caches of decoded images on disk."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from automl_pt.core.errors import ConfigError, OutputError
from automl_pt.core.files import cache_folder, output_error
from automl_pt.core.text import printable
from automl_pt.data.cache.feature_file import SUFFIX as FEATURES
from automl_pt.data.cache.feature_file import DamagedFeatures, count_rows, read_meta
from automl_pt.data.cache.pool_file import DamagedPool, open_pool

SUFFIX = ".pixels"
LIMIT_VARIABLE = "AUTOML_PT_CACHE_LIMIT"
#: share of the disk for caches if the variable sets no limit
DISK_SHARE = 0.2
#: bytes of the disk to leave free
RESERVE = 256 << 20
#: seconds without use after which a cache may be removed for another one
IDLE = 24 * 3600
#: names of hash files and archives, and of files belonging to them, because a folder that the user chose for caches
#: may have other files in folders of the same names
_OURS = re.compile(r"\.?([0-9a-f]{32}|[0-9a-f]{64})(\..*)?")


@dataclass(frozen=True)
class CacheFile:
    """One cache on disk; `used` is the time of its last use; `image_size` and `count` are None for a damaged one."""

    path: Path
    size: int
    used: float
    image_size: int | None
    count: int | None
    #: its content: `pixels`, or `features` of a `backbone`
    kind: str = "pixels"
    backbone: str | None = None


def pixels_folder(cache_dir: str | Path | None = None) -> Path:
    """Return the folder of caches within `cache_dir`, or within the user's cache folder."""
    return (Path(cache_dir) if cache_dir is not None else cache_folder()) / "pixels"


def mark_path(path: Path) -> Path:
    """Return the small file beside a cache that records its last verification and, by its time, its last use."""
    return path.with_suffix(".json")


def list_caches(folder: Path) -> list[CacheFile]:
    """Return the caches in `folder`, the most recently used first."""
    return sorted(_found(folder), key=lambda cache: (-cache.used, cache.path.name))


def _found(folder: Path) -> Iterator[CacheFile]:
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        with suppress(FileNotFoundError):  # another process has just removed it
            status, mark = path.stat(), mark_path(path)
            used = max(status.st_mtime, mark.stat().st_mtime if mark.exists() else 0.0)
            try:
                count, _, _, size = open_pool(path).images.shape
                yield CacheFile(path, status.st_size, used, size, count)
            except DamagedPool:
                yield CacheFile(path, status.st_size, used, None, None)
    for path in sorted(folder.glob(f"*{FEATURES}")):
        with suppress(FileNotFoundError):  # as above
            yield _features(path)


def _features(path: Path) -> CacheFile:
    status = path.stat()
    try:
        meta, count = read_meta(path), count_rows(path)
        size, backbone = int(meta["preprocessing"]["image_size"]), str(meta["backbone"])
    except (DamagedFeatures, KeyError, TypeError, ValueError):
        return CacheFile(path, status.st_size, status.st_mtime, None, None, "features")
    return CacheFile(path, status.st_size, status.st_mtime, size, count, "features", backbone)


def remove(cache: CacheFile) -> None:
    """Delete a cache; processes that have it mapped can continue to use it."""
    try:
        mark_path(cache.path).unlink(missing_ok=True)
        cache.path.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(error, cache.path) from error


def prune(folder: Path, *, max_bytes: int | None = None, unused_seconds: float | None = None) -> list[CacheFile]:
    """Remove damaged caches, those unused for `unused_seconds`, and the least recently used beyond `max_bytes` in all.

    Returns the removed caches.
    """
    removed, kept = [], 0
    for cache in list_caches(folder):
        too_old = unused_seconds is not None and time.time() - cache.used > unused_seconds
        too_much = max_bytes is not None and kept + cache.size > max_bytes
        if cache.count is None or too_old or too_much:
            remove(cache)
            removed.append(cache)
        else:
            kept += cache.size
    return removed


def clear_rest(folder: Path) -> None:
    """Delete what is beside the folder of caches (hashes and unpacked archives), and locks and marks in it.

    Raises OutputError if something cannot be deleted.
    """
    beside = [path for name in ("hashes", "archives") for path in (folder.parent / name).glob("*")]
    ours = [path for path in beside if _OURS.fullmatch(path.name)]
    for path in sorted([*folder.glob("*.lock"), *folder.glob("*.json"), *ours]):
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise output_error(error, path) from error


def limit(folder: Path) -> int:
    """Return the limit of all caches in bytes; raise ConfigError if the variable is not a number."""
    text = os.environ.get(LIMIT_VARIABLE)
    if not text:
        return int(shutil.disk_usage(folder).total * DISK_SHARE)
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = -1.0
    if not 0 <= gigabytes < float("inf"):
        raise ConfigError(
            [f"{LIMIT_VARIABLE}: must be a number of gigabytes, got {printable(text)!r}"], source="environment"
        )
    return int(gigabytes * 1e9)


def make_room(folder: Path, needed: int) -> list[CacheFile]:
    """Free `needed` bytes on the disk and under the limit; return the caches, unused for a day, that were removed.

    Raises OutputError, without removing anything, if that would not be enough.
    """
    caches, allowed = list_caches(folder), limit(folder)
    idle = [cache for cache in reversed(caches) if time.time() - cache.used > IDLE or cache.count is None]
    free, taken = shutil.disk_usage(folder).free - RESERVE, sum(cache.size for cache in caches)
    removed: list[CacheFile] = []
    while (needed > free or taken + needed > allowed) and idle:
        removed.append(idle.pop(0))
        free, taken = free + removed[-1].size, taken - removed[-1].size
    if needed > free or taken + needed > allowed:
        raise _no_room(folder, needed, free=free, left=allowed - taken, limited=taken + needed > allowed)
    for cache in removed:
        remove(cache)
    return removed


def _no_room(folder: Path, needed: int, *, free: int, left: int, limited: bool) -> OutputError:
    if limited:
        given = f"{folder}: {gigabytes(needed)} needed, {gigabytes(left)} left of the limit"
        remedy = f"remove caches with `automl-pt cache prune`, raise {LIMIT_VARIABLE} (gigabytes), or"
    else:
        given = f"{folder}: {gigabytes(needed)} needed, {gigabytes(free)} free"
        remedy = "free some space, or"
    return OutputError(
        "the cache folder has no space for the decoded images",
        given=given,
        remedy=f"{remedy} choose a folder on another disk with --cache-dir or AUTOML_PT_CACHE",
    )


def gigabytes(size: float) -> str:
    """Return a number of bytes in units of 10**9 or 10**6."""
    size = max(0, size)
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
