"""Which file system a path lies on: some lie on another machine, whose locks cannot be relied on."""

from __future__ import annotations

import os
import re
from pathlib import Path

#: what helps where locks are missing or cannot be relied on
LOCK_REMEDY = (
    "work in a folder on a disk of this machine (of a search: start it there, or name --storage postgresql://... and a "
    "local folder), or have the network file system mounted with locks"
)
#: types of file systems that lie on other machines; those in user space begin with "fuse."
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
#: file systems in user space that lie on this machine
_LOCAL_FUSE = frozenset(
    f"fuse.{name}" for name in ("bindfs", "encfs", "gocryptfs", "lxcfs", "mergerfs", "ntfs", "portal", "unionfs")
)
_MOUNTS = Path("/proc/self/mounts")
_ESCAPED = re.compile(r"\\([0-7]{3})")


def network_type(path: Path) -> str | None:
    """Return the type of the network file system that `path` lies on; None for a disk of this machine, and unknown."""
    try:
        table = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None  # not Linux
    return network_type_in(table, os.path.realpath(path))


def network_type_in(table: str, path: str) -> str | None:
    """Return the type as `network_type` does, by a table of mounts as Linux gives it, for a path without links."""
    found = ("", "")
    for line in table.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = _ESCAPED.sub(lambda match: chr(int(match[1], 8)), fields[1])
        # a later line covers an earlier one of the same folder
        if _lies_in(path, point) and len(point) >= len(found[0]):
            found = point, fields[2]
    return found[1] if _is_remote(found[1]) else None


def _lies_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _is_remote(kind: str) -> bool:
    return kind in _REMOTE or (kind.startswith("fuse.") and kind not in _LOCAL_FUSE)


def network_note(path: Path, what: str) -> str | None:
    """Return a warning where `path`, which holds `what`, lies on a network file system; None elsewhere."""
    kind = network_type(path)
    if kind is None:
        return None
    return (
        f"{what} lies on a network file system ({kind}: {path}), whose locks cannot be relied on: use it from one "
        f"machine at a time, or {LOCK_REMEDY}"
    )
