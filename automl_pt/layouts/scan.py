"""Lists a folder's image files, each once and sorted; follows links out of the folder only on request."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from automl_pt.core.errors import InvalidDatasetError
from automl_pt.core.text import printable
from automl_pt.images.read import format_of
from automl_pt.layouts.left_out import HIDDEN, OUTSIDE, is_ignored, suffix, why_not


@dataclass
class Scan:
    """The content of a folder: names are relative, with slashes; `left_out` pairs a name with the reason."""

    root: Path
    #: sorted names of image files
    names: list[str] = field(default_factory=list)
    #: the target of each name that is a link within the folder
    targets: dict[str, Path] = field(default_factory=dict)
    #: every folder that is not ignored
    folders: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    #: devices and inodes of the files and folders that are used
    seen: set[tuple[int, int]] = field(default_factory=set)

    def path(self, name: str) -> Path:
        """Return the file called `name`."""
        return self.targets.get(name) or self.root / name


def scan(root: Path, *, follow_links: bool = False) -> Scan:
    """List the images under `root`; raise InvalidDatasetError if a folder cannot be read.

    Targets of links to folders within `root` count where they are. A link to a file counts if the file is within `root`
    and not counted itself. With `follow_links` files and folders elsewhere count too, under the link's name, each once.
    Pipes, sockets and devices are never opened.
    """
    found = Scan(Path(os.path.realpath(root)))
    links = sorted(_walk(found, ""))
    while links:
        links = sorted(new for name in links for new in _take_link(found, name, follow_links))
    found.names.sort()
    found.folders.sort()
    found.left_out.sort()
    return found


def _walk(found: Scan, start: str) -> list[str]:
    """Collect files and return the links; iterative, because folders may be nested deeper than Python's stack.

    `start` is the name of a folder with a trailing slash, or empty for the root.
    """
    links: list[str] = []
    folders = [start]
    while folders:
        folder = folders.pop()
        identity = _identity(os.stat(found.root / folder))
        if identity in found.seen:
            found.left_out.append((folder.rstrip("/"), "a folder that is counted already, through a link"))
            continue
        found.seen.add(identity)
        for entry in _entries(found.root, folder):
            name = f"{folder}{entry.name}"
            if is_ignored(entry.name):
                found.left_out.append((name, HIDDEN))
            elif entry.is_symlink():
                links.append(name)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(f"{name}/")
                found.folders.append(name)
            else:
                _take_file(found, name, entry, through_link=bool(start))
    return links


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _entries(root: Path, folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(root / folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise InvalidDatasetError(
            "a folder of the dataset is not readable",
            given=f"{printable(root / folder)}: {error.strerror}",
            remedy="change its permissions, or move it out of the dataset",
        ) from error


def _take_file(found: Scan, name: str, entry: os.DirEntry[str], *, through_link: bool) -> None:
    if not entry.is_file(follow_symlinks=False):
        found.left_out.append((name, "a pipe, socket or device"))
    elif format_of(suffix(name)) is None:
        found.left_out.append((name, why_not(name)))
    else:
        identity = _identity(entry.stat(follow_symlinks=False))
        if through_link and identity in found.seen:
            found.left_out.append((name, "a file that is counted already, through a link"))
        else:
            found.seen.add(identity)
            found.names.append(name)


def _take_link(found: Scan, name: str, follow: bool) -> list[str]:
    """Add the target of a link, or the reason against it; return the links found in a folder that it leads to."""
    target = Path(os.path.realpath(found.root / name))
    if not target.exists():
        found.left_out.append((name, "a link that leads nowhere, or in a circle"))
        return []
    outside = not target.is_relative_to(found.root)
    identity = _identity(target.stat())
    if outside and not follow:
        found.left_out.append((name, OUTSIDE))
    elif target.is_dir() and not outside:
        found.left_out.append((name, "a link to a folder; its files are counted where they are"))
    elif target.is_dir() and identity not in found.seen:
        found.folders.append(name)
        return _walk(found, f"{name}/")
    elif not target.is_dir() and (not target.is_file() or format_of(suffix(name)) is None):
        found.left_out.append((name, why_not(name)))
    elif identity in found.seen:
        found.left_out.append((name, f"a link to a {'folder' if target.is_dir() else 'file'} that is counted already"))
    else:
        found.seen.add(identity)
        found.names.append(name)
        found.targets[name] = target
    return []
