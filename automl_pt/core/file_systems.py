"""Detects network file systems, because their locks are not reliable."""

from __future__ import annotations

import os
import re
from pathlib import Path

#: the remedy where locks are missing or unreliable
LOCK_REMEDY = (
    "work in a folder on a local disk (for a search: start it there, or pass --storage postgresql://... and a "
    "local folder), or have the network file system mounted with locks"
)
#: types of network file systems; those in user space begin with "fuse."
_REMOTE = frozenset(
    (
        *(
            "9p",
            "afp",
            "afpfs",
            "afs",
            "beegfs",
            "ceph",
            "cifs",
            "coda",
            "davfs",
            "gfs2",
            "glusterfs",
            "gpfs",
            "lustre",
        ),
        *("ncpfs", "nfs", "nfs3", "nfs4", "ocfs2", "panfs", "pvfs2", "smb", "smb2", "smb3", "smbfs", "wekafs"),
    )
)
#: file systems in user space that are local
_LOCAL_FUSE = frozenset(
    f"fuse.{name}" for name in ("bindfs", "encfs", "gocryptfs", "lxcfs", "mergerfs", "ntfs", "portal", "unionfs")
)
_MOUNTS = Path("/proc/self/mounts")
_ESCAPED = re.compile(r"\\([0-7]{3})")


def network_type(path: Path) -> str | None:
    """Return the type of the network file system that holds `path`; None for a local disk, and where it is unknown."""
    try:
        table = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None  # not Linux
    return network_type_in(table, os.path.realpath(path))


def network_type_in(table: str, path: str) -> str | None:
    """Return the same as `network_type`, from a mount table in Linux's format, for a path without links."""
    found = ("", "")
    for line in table.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = _ESCAPED.sub(lambda match: chr(int(match[1], 8)), fields[1])
        # a later mount hides an earlier one on the same folder
        if _lies_in(path, point) and len(point) >= len(found[0]):
            found = point, fields[2]
    return found[1] if _is_remote(found[1]) else None


def _lies_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _is_remote(kind: str) -> bool:
    return kind in _REMOTE or (kind.startswith("fuse.") and kind not in _LOCAL_FUSE)


def network_note(path: Path, what: str) -> str | None:
    """Return a warning if `path`, which holds `what`, is on a network file system; None otherwise."""
    kind = network_type(path)
    if kind is None:
        return None
    return (
        f"{what} is on a network file system ({kind}: {path}), whose locks are not reliable: use it from one "
        f"machine at a time, or {LOCK_REMEDY}"
    )
