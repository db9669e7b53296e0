"""Writes files atomically: to a temporary name, synced, renamed. A reader sees the old file or the new one."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from automl_pt.core.errors import OutputError, UsageError
from automl_pt.core.json_reader import read_json as read_json  # beside `write_json`
from automl_pt.core.likeness import similar
from automl_pt.core.text import printable

#: names of a folder that are compared with one that was not found
MAX_NEIGHBOURS = 2000


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; on exit without an error it is renamed to `path` and synced.

    Raises OutputError when the disk is full or the folder cannot be written; `path` is then unchanged.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        # on a full disk torch's writer raises a RuntimeError, whose context is the OSError
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise output_error(cause, path) from error
    finally:
        with suppress(OSError):  # the error above has already been raised
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on exit without an error it replaces `path`.

    Raises OutputError when the disk is full or the folder cannot be written; no partial result remains.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        shutil.rmtree(path, ignore_errors=True)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise output_error(error, path) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_new(path: Path, chunks: Iterable[bytes]) -> int:
    """Write a file that must not exist yet, within `atomic_folder`; return its size in bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "xb") as stream:
        return sum(stream.write(chunk) for chunk in chunks)


def atomic_write(path: Path, content: bytes | str) -> None:
    """Replace the content of `path`; text is written as UTF-8."""
    with atomic_file(path) as stream:
        stream.write(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)


def sync_folder(folder: Path) -> None:
    """Sync `folder`, so that a rename in it survives a power cut, where the system can sync folders."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_folder(path: Path) -> Path:
    """Create `path` with its parents and check that it is writable; raise OutputError before any work is done."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        remove_stale(path)
        probe = path / f".probe.{os.getpid()}.{secrets.token_hex(4)}.tmp"
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise output_error(error, path) from error
    return path


def remove_stale(folder: Path) -> None:
    """Remove temporary files in `folder` whose writing process no longer runs."""
    for path in sorted(folder.glob(".*.tmp")):
        parts = path.name.split(".")
        if len(parts) > 3 and parts[-3].isdigit() and not is_running(int(parts[-3])):
            path.unlink(missing_ok=True)


def is_running(pid: int) -> bool:
    """Say whether a process of this number runs on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OSError):
        return True
    return True


def output_error(error: OSError, path: Path) -> OutputError:
    """Return an error that says why `path` cannot be written and what helps."""
    remedies = {
        errno.ENOSPC: "free some space and run the same command again; it resumes from the last checkpoint",
        errno.EDQUOT: "free some of your quota and run the same command again; it resumes from the last checkpoint",
        errno.EROFS: "choose a folder on a writable file system",
        errno.EACCES: "choose a folder you may write to, or change its permissions",
        errno.EPERM: "choose a folder you may write to, or change its permissions",
        errno.ENOTDIR: "a part of the path is a file; choose another folder",
        errno.ENAMETOOLONG: "choose a shorter name",
        errno.EMFILE: "raise the limit on open files, as with `ulimit -n 1024`, and run the same command again",
        errno.EEXIST: "a file of that name exists; choose another folder",
    }
    reason = os.strerror(error.errno) if error.errno else str(error)
    remedy = remedies.get(error.errno or 0, "check the disk and the path, then run the same command again")
    return OutputError("the output cannot be written", given=f"{path}: {reason}", remedy=remedy)


def finite_or_none(value: Any) -> Any:
    """Replace NaN and infinities by None, at any depth, because JSON cannot express them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite_or_none(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_none(item) for item in value]
    return value


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Return `value` as standard JSON in ASCII, so that any file name survives; non-finite numbers become null."""
    return json.dumps(finite_or_none(value), indent=indent, allow_nan=False)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    atomic_write(path, to_json(value, indent=2) + "\n")


def is_there(path: str | Path) -> bool:
    """Return whether something exists at `path`; False for a name that the file system does not allow."""
    return os.path.exists(path)


def not_found(path: str | Path, also: Iterable[str] = ()) -> str:
    """Return that a path leads to nothing, with similar names: of `also`, and beside the path's first absent part."""
    near = [*similar(str(path), also), *_existing(Path(path))]
    hint = f". Did you mean {' or '.join(map(printable, list(dict.fromkeys(near))[:3]))}?" if near else ""
    return f"Folder or file not found: {printable(path)}{hint}"


def _existing(path: Path) -> list[str]:
    """Return paths that exist with a name similar to the first part of `path` that does not, the most similar first.

    Its further parts are looked for below each of them, and dropped where nothing there is similar.
    """
    parts = [path, *path.parents]
    try:
        absent = next(part for part, above in zip(parts, parts[1:], strict=False) if above.is_dir())
        with os.scandir(absent.parent) as entries:
            names = [entry.name for entry in islice(entries, MAX_NEIGHBOURS) if not entry.name.startswith(".")]
    except (StopIteration, OSError, ValueError):  # the root itself, no permission, or a name with a NUL byte
        return []
    found = []
    for near in (absent.parent / name for name in similar(absent.name, sorted(names))):
        whole = near / path.relative_to(absent)
        found += [str(whole)] if whole.exists() else _existing(whole) or [str(near)]
    return found


def impossible_name(error: BaseException) -> UsageError | None:
    """Return a usage error for an OS error about a name that no file can have; None for other errors."""
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        given = printable(error.filename)
        shown = given if len(given) <= 200 else f"{given[:100]}... ({len(given)} characters)"
        return UsageError("this name is longer than the file system allows", given=shown, remedy="give a shorter name")
    if isinstance(error, ValueError) and "embedded null" in str(error):
        return UsageError("a file name contains a NUL character", given=str(error), remedy="give the name without it")
    return None


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


CACHE_VARIABLE = "AUTOML_PT_CACHE"


@contextmanager
def naming_the_variable(option: str | None = None) -> Iterator[None]:
    """Add to an OutputError about the cache how to choose another cache folder: by the variable, or an `option`."""
    try:
        yield
    except OutputError as error:
        how = CACHE_VARIABLE if option is None else f"{option} or {CACHE_VARIABLE}"
        if CACHE_VARIABLE in error.remedy:
            raise
        remedy = f"{error.remedy}, or choose another cache folder with {how}"
        raise OutputError(error.rule, given=error.given, remedy=remedy) from error


def cache_folder() -> Path:
    """Return the folder for reproducible files: `AUTOML_PT_CACHE`, else `automl_pt` in the user's cache folder."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "automl_pt"
