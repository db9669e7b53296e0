from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from tiny_runs import write_plugin

from automl_pt.check.memory import open_memory
from automl_pt.core.errors import NoLocksError, OutputError
from automl_pt.core.file_systems import network_type_in
from automl_pt.core.locks import locked
from automl_pt.study.store.backends import close_storage, open_storage, storage_note

HOLD = """
import sys, time
from pathlib import Path
from automl_pt.core.locks import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_is_refused_while_held_and_free_after_a_sigkill(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match="this folder is in use by another process"), locked(path, wait=False):
            pass
        holder.kill()
        holder.wait()
        with locked(path, wait=False):
            pass


def test_a_lock_file_removed_by_its_owner_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with locked(path):
        command = [sys.executable, "-c", HOLD, str(path)]
        waiting = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        # whether it has opened the file by now or not, it must end up with the one that is there
        time.sleep(0.5)
        path.unlink()
    with waiting:
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == "held\n"
        with pytest.raises(OutputError), locked(path, wait=False):
            pass
        waiting.kill()


NO_LOCKS = """
import fcntl, os, sys
number, names = int(sys.argv.pop(1)), sys.argv.pop(1).split()
def refuse(*_):
    raise OSError(number, os.strerror(number))
for name in names:
    setattr(fcntl, name, refuse)
from automl_pt.cli import main
sys.exit(main())
"""


def without_locks(number: int, names: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command where no file can be locked in the ways that are named."""
    command = [sys.executable, "-c", NO_LOCKS, str(number), names, *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_a_file_system_without_locks_is_an_error_that_says_what_to_do(tmp_path: Path, number: int) -> None:
    with pytest.raises(NoLocksError) as caught:
        raise_from(tmp_path / "x.lock", number)
    assert str(tmp_path / "x.lock") in caught.value.given
    assert os.strerror(number) in caught.value.given
    assert "on a local disk" in caught.value.remedy


def raise_from(path: Path, number: int) -> None:
    """Lock a file of a file system that has no locks."""
    with pytest.MonkeyPatch.context() as patch:

        def refuse(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        patch.setattr("fcntl.flock", refuse)
        with locked(path):
            pass


def test_commands_on_a_file_system_without_locks(tmp_path: Path, tiny_folder: Path) -> None:
    plugin = str(write_plugin(tmp_path))
    fast = ["--backbone", "tiny", "--epochs", "1", "--device", "cpu", "--plugin", plugin]
    searching = ["search", str(tiny_folder), *fast, "--workers", "0"]
    searched = without_locks(errno.ENOLCK, "flock", *searching, cwd=tmp_path)
    # on some only SQLite's own kind of locks is missing
    stored = without_locks(errno.ENOLCK, "lockf", *searching, cwd=tmp_path)
    trained = without_locks(errno.ENOSYS, "flock", "train", str(tiny_folder), *fast, "--output", "run", cwd=tmp_path)
    for done in (searched, stored, trained):
        assert done.returncode == 1
        assert done.stderr.count("error: ") == 1
        assert "Traceback" not in done.stderr
        assert "work in a folder on a local disk" in done.stderr


TABLE = r"""
sysfs /sys sysfs rw 0 0
/dev/vda / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
tmpfs /home/ann/fast tmpfs rw 0 0
//nas/share /mnt/my\040disk cifs rw 0 0
ann@host: /mnt/ssh fuse.sshfs rw 0 0
/dev/sdb /mnt/usb fuse.ntfs rw 0 0
/dev/sdc /mnt/twice nfs rw 0 0
/dev/sdc /mnt/twice xfs rw 0 0
10.0.0.1@tcp:/scratch /scratch lustre rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/data/x", None),
        ("/home", "nfs4"),
        ("/home/ann/study.db", "nfs4"),
        ("/homes/study.db", None),
        ("/home/ann/fast/study.db", None),
        ("/mnt/my disk/study.db", "cifs"),
        ("/mnt/ssh/a/b", "fuse.sshfs"),
        ("/mnt/usb/a", None),
        ("/mnt/twice/a", None),
        ("/scratch/ann/studies", "lustre"),
    ],
)
def test_a_network_file_system_is_known_by_the_table_of_mounts(path: str, kind: str | None) -> None:
    assert network_type_in(TABLE.lstrip(), path) == kind


def test_sqlite_shares_no_memory_on_a_network_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mode() -> str:
        storage = open_storage(f"sqlite:///{tmp_path}/study.db")
        close_storage(storage)
        with closing(sqlite3.connect(tmp_path / "study.db")) as connection:
            return str(connection.execute("PRAGMA journal_mode").fetchone()[0])

    assert mode() == "wal"
    table = tmp_path / "mounts"
    table.write_text(f"server:/home {os.path.realpath(tmp_path)} lustre rw 0 0\n")
    monkeypatch.setattr("automl_pt.core.file_systems._MOUNTS", table)
    assert mode() == "delete"  # also of a study that was begun on a local disk
    monkeypatch.undo()
    assert mode() == "wal"


def test_files_that_need_locks_are_warned_of_on_a_network_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert storage_note(f"sqlite:///{tmp_path}/study.db") is None
    table = tmp_path / "mounts"
    table.write_text(f"server:/home {os.path.realpath(tmp_path)} nfs4 rw 0 0\n")
    monkeypatch.setattr("automl_pt.core.file_systems._MOUNTS", table)
    for url, what in (
        (f"sqlite:///{tmp_path}/x/study.db", "the study's SQLite database"),
        (f"journal:{tmp_path}/x.log", "the study's journal"),
    ):
        note = storage_note(url)
        assert note is not None
        assert note.startswith(f"{what} is on a network file system (nfs4: {tmp_path}/x")
    assert storage_note("postgresql://ann@host/db") is None
    assert storage_note("sqlite://") is None
    monkeypatch.setenv("AUTOML_PT_CACHE", str(tmp_path / "cache"))
    memory, notes = open_memory()
    with memory:
        assert [note.partition(" (")[0] for note in notes] == ["the cache of checks is on a network file system"]
