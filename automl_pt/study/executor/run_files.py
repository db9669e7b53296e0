"""A trial's folder on two disks: what changed on the place's, and how the coordinator's follows.

A file is replaced as a whole. Those that name other files come last, so that a copy that is cut short still resumes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from automl_pt.core.files import atomic_write

#: files by their path within the folder; None: removed
Files = Mapping[str, bytes | None]
#: how names begin, in the order in which their files are written; all others come before them
ORDER = ("weights", "last-", "model.json", "last.json", "run.json", "history.jsonl")
#: parts of names that stay where they are: locks, unfinished files, logs, the storage
LOCAL = (".lock", ".tmp", ".log", ".db", ".db-wal", ".db-shm")


class FolderCopy:
    """What of a folder the other side has; `skip` names folders within it that do not travel."""

    def __init__(self, folder: Path, skip: tuple[str, ...] = ()) -> None:
        self._folder, self._skip = folder, skip
        self._sent: dict[str, tuple[int, int, int]] = {}

    def changes(self) -> dict[str, bytes | None]:
        """Return the files that changed since this was last asked, and None for those that are gone."""
        now: dict[str, tuple[int, int, int]] = {}
        changed: dict[str, bytes | None] = {}
        for path in sorted(self._folder.rglob("*")):
            name = path.relative_to(self._folder).as_posix()
            if not path.is_file() or path.is_symlink() or name.endswith(LOCAL) or set(path.parts) & set(self._skip):
                continue
            found = path.stat()
            now[name] = (found.st_ino, found.st_mtime_ns, found.st_size)
            if self._sent.get(name) != now[name]:
                changed[name] = path.read_bytes()
        changed |= {name: None for name in self._sent if name not in now}
        self._sent = now
        return changed


def write_files(folder: Path, files: Files) -> int:
    """Bring a folder to the state that `changes` described, in order; return the bytes written.

    Raises ValueError for a name that leads out of the folder.
    """
    written = 0
    for name in sorted((name for name, content in files.items() if content is not None), key=_rank):
        content = files[name]
        assert content is not None
        atomic_write(_within(folder, name), content)
        written += len(content)
    for name, content in files.items():
        if content is None:
            _within(folder, name).unlink(missing_ok=True)
    return written


def _rank(name: str) -> tuple[int, str]:
    last = PurePosixPath(name).name
    return next((place for place, start in enumerate(ORDER) if last.startswith(start)), -1), name


def _within(folder: Path, name: str) -> Path:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"not a name within a folder: {name!r}")
    return folder / path
