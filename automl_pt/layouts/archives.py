"""Unpacks an archive of images into the cache, once per content: no path leaves it, no links, everything limited."""

from __future__ import annotations

import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, NoReturn
from unicodedata import normalize

from automl_pt.core.errors import InvalidDatasetError
from automl_pt.core.files import (
    atomic_folder,
    cache_folder,
    naming_the_variable,
    read_json,
    sha256_file,
    write_json,
    write_new,
)
from automl_pt.core.locks import locked
from automl_pt.core.text import printable
from automl_pt.layouts.left_out import is_ignored
from automl_pt.layouts.tar import members, open_tar

#: limit of usual file systems for one name
MAX_NAME_BYTES = 255
MAX_MEMBERS = 5_000_000
#: limit of one file; the same as an image's
MAX_MEMBER_BYTES = 512 * 1024 * 1024
MAX_TOTAL_BYTES = 2 * 1024**4
#: limit of unpacked by packed size; images hardly compress, decompression bombs do
MAX_RATIO = 100
#: up to this size the ratio is not checked, because small archives of flat drawings may exceed it
FREE_BYTES = 64 * 1024 * 1024

_CHUNK = 1024 * 1024


def extract(archive: Path) -> Path:
    """Return the folder with the archive's files; unpack the archive unless an intact copy exists.

    Hidden and system files are not unpacked.
    Raises InvalidDatasetError for damaged, encrypted and unsafe archives, OutputError when the cache is not writable.
    """
    digest = sha256_file(archive)
    folder = cache_folder() / "archives" / digest
    with naming_the_variable(), locked(folder.with_name(f"{digest}.lock")):
        record = folder.with_name(f"{digest}.json")
        if not _is_intact(folder, record):
            with atomic_folder(folder) as temporary:
                unpacking = _Unpacking(archive, temporary)
                sizes = unpacking.run()
            write_json(record, {"archive": archive.name, "sizes": sizes, "ignored": sorted(unpacking.ignored)})
    return folder


def ignored(folder: Path) -> list[str]:
    """Return the names of hidden and system files that `extract` did not unpack."""
    names: list[str] = read_json(folder.with_name(f"{folder.name}.json"))["ignored"]
    return names


def _is_intact(folder: Path, record: Path) -> bool:
    """Return whether every unpacked file still exists with its size."""
    try:
        stored = read_json(record)
        sizes, _ = stored["sizes"], stored["ignored"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


@dataclass
class _Unpacking:
    """The unpacking of one archive into a folder."""

    archive: Path
    folder: Path
    total: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    #: names of hidden and system files, which are not unpacked
    ignored: list[str] = field(default_factory=list)
    #: names as compared by systems that ignore case or use another Unicode normal form
    seen: dict[str, str] = field(default_factory=dict)

    @property
    def limit(self) -> int:
        packed = self.archive.stat().st_size
        return min(MAX_TOTAL_BYTES, max(FREE_BYTES, MAX_RATIO * packed))

    def run(self) -> dict[str, int]:
        """Unpack; return the sizes in bytes of the files by name."""
        unpack = self._zip if self.archive.name.lower().endswith(".zip") else self._tar
        try:
            unpack()
        except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
            self._damaged(error)
        except OSError as error:
            if error.errno is not None:  # an error of the file system; damaged content has no errno
                raise
            self._damaged(error)
        return self.sizes

    def _zip(self) -> None:
        with zipfile.ZipFile(self.archive) as content:
            listed = content.infolist()
            self._bound(sum(member.file_size for member in listed), len(listed))
            for member in listed:
                mode = member.external_attr >> 16
                if member.is_dir():
                    self._checked(member.filename)
                elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                    self._unsafe(member.filename, "a link or device")
                elif member.flag_bits & 1:
                    self._unsafe(member.filename, "encrypted")
                else:
                    self._take(member.filename, member.file_size, partial(content.open, member))

    def _tar(self) -> None:
        with open_tar(self.archive, limit=self.limit + FREE_BYTES) as content:
            for member in members(content):
                self._bound(self.total + member.size, len(self.seen) + 1)
                if member.isdir():
                    self._checked(member.name)
                elif not member.isreg() or member.issparse():
                    self._unsafe(member.name, "a link, device or sparse file")
                else:
                    self._take(member.name, member.size, partial(content.extractfile, member))

    def _take(self, name: str, size: int, open_member: Callable[[], IO[bytes] | None]) -> None:
        """Write one file, unless it is a hidden or system file."""
        parts = self._checked(name)
        self._once("/".join(parts))
        if size > MAX_MEMBER_BYTES:
            self._unsafe(name, f"{size:,} bytes, more than the limit of {MAX_MEMBER_BYTES:,} for one file")
        if any(is_ignored(part) for part in parts):
            self.ignored.append("/".join(parts))
            return
        stream = open_member()
        assert stream is not None, "a regular file has content"
        with stream:
            self.sizes["/".join(parts)] = write_new(self.folder.joinpath(*parts), self._chunks(stream, name, size))

    def _chunks(self, stream: IO[bytes], name: str, size: int) -> Iterator[bytes]:
        """Yield the content, within the size in its header and the limits."""
        left = size
        while chunk := stream.read(_CHUNK):
            left -= len(chunk)
            self.total += len(chunk)
            if left < 0:
                self._unsafe(name, "longer than its header says")
            self._bound(self.total, len(self.seen))
            yield chunk

    def _checked(self, name: str) -> tuple[str, ...]:
        """Return the parts of a safe relative path."""
        path = PurePosixPath(name)
        if path.is_absolute() or PureWindowsPath(name).drive or ".." in path.parts or "\\" in name or "\0" in name:
            self._unsafe(name, "a path that may lead out of the folder")
        if any(len(part.encode("utf-8", "surrogateescape")) > MAX_NAME_BYTES for part in path.parts):
            self._unsafe(name, f"a name of more than {MAX_NAME_BYTES} bytes, which file systems do not allow")
        return path.parts

    def _once(self, name: str) -> None:
        key = normalize("NFC", name).casefold()
        if key in self.seen:
            self._unsafe(name, f"a name that some systems cannot distinguish from {printable(self.seen[key])}")
        self.seen[key] = name

    def _bound(self, total: int, members: int) -> None:
        if total > self.limit:
            raise InvalidDatasetError(
                "the archive unpacks to more than its packed size allows",
                given=f"{printable(self.archive)}: more than {self.limit:,} bytes, {MAX_RATIO} times its size",
                remedy="unpack it yourself if you trust it, and give the folder",
            )
        if members > MAX_MEMBERS:
            raise InvalidDatasetError(
                f"the archive holds more than {MAX_MEMBERS:,} files",
                given=f"{printable(self.archive)}: more",
                remedy="unpack it yourself if you trust it, and give the folder",
            )

    def _unsafe(self, name: str, why: str) -> NoReturn:
        raise InvalidDatasetError(
            "the archive holds something other than plain files under relative paths",
            given=f"{printable(self.archive)}: {printable(name)} is {why}",
            remedy="make the archive again without it, or unpack it yourself if you trust it and give the folder",
        )

    def _damaged(self, error: Exception) -> NoReturn:
        raise InvalidDatasetError(
            "the archive is damaged",
            given=f"{printable(self.archive)}: {printable(error) or type(error).__name__}",
            remedy="download or create it again",
        ) from error
