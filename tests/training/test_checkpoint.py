from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
import torch

from automl_pt.core.errors import CheckpointError, OutputError
from automl_pt.training.checkpoint import RECORD, Checkpoints, require_same


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    found = Checkpoints(tmp_path)
    for epoch in (1, 2, 3):
        found.save({"weight": torch.full((100,), float(epoch)), "epoch": epoch}, epoch=epoch, step=0)
    return found


def files(checkpoints: Checkpoints) -> list[Path]:
    return sorted(checkpoints.folder.glob("last-*.pt"))


def test_the_newest_is_loaded_and_one_before_it_is_kept(checkpoints: Checkpoints) -> None:
    state, notes = checkpoints.load()
    assert state is not None
    assert state["epoch"] == 3
    assert notes == []
    assert [path.name for path in files(checkpoints)] == ["last-00002-0000000.pt", "last-00003-0000000.pt"]


@pytest.mark.parametrize("damage", ["truncated", "bit", "empty", "gone", "text"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(checkpoints: Checkpoints, damage: str) -> None:
    newest = files(checkpoints)[-1]
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    damaged = {"truncated": bytes(data[:-7]), "bit": bytes(data), "empty": b"", "text": b"hello"}
    newest.unlink() if damage == "gone" else newest.write_bytes(damaged[damage])
    state, notes = checkpoints.load()
    assert state is not None
    assert state["epoch"] == 2
    assert len(notes) == 1
    assert newest.name in notes[0]


def test_every_single_flipped_byte_is_noticed(checkpoints: Checkpoints) -> None:
    newest = files(checkpoints)[-1]
    data = newest.read_bytes()
    for position in range(0, len(data), max(1, len(data) // 60)):
        newest.write_bytes(data[:position] + bytes([data[position] ^ 255]) + data[position + 1 :])
        state, notes = checkpoints.load()
        assert state is not None
        assert (state["epoch"], len(notes)) == (2, 1)


def test_a_disk_that_fails_while_the_file_is_hashed_is_an_error(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def full(descriptor: int) -> None:
        # the kernel tells of a failure once: whoever syncs again is told that all is well
        if threading.current_thread() is not threading.main_thread():
            raise OSError(errno.ENOSPC, "full")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="free some space"):
        checkpoints.save({"epoch": 4}, epoch=4, step=0)
    state, notes = checkpoints.load()
    assert state is not None
    assert (state["epoch"], notes) == (3, [])


def test_two_damaged_checkpoints_are_both_named(checkpoints: Checkpoints) -> None:
    for path in files(checkpoints):
        path.write_bytes(b"x")
    state, notes = checkpoints.load()
    assert state is None
    assert len(notes) == 2


@pytest.mark.parametrize("record", ["", "{}", "[1]", '[{"file": "../evil.pt", "sha256": ""}]'])
def test_a_damaged_record_is_named(checkpoints: Checkpoints, record: str) -> None:
    (checkpoints.folder / RECORD).write_text(record)
    state, notes = checkpoints.load()
    assert state is None
    assert (RECORD in notes[0]) if record != "{}" else notes == []


class Canary:
    """Pickled, this runs code where it is loaded without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_no_code_runs_from_a_checkpoint_even_with_a_fitting_checksum(checkpoints: Checkpoints, tmp_path: Path) -> None:
    checkpoints.save({"evil": Canary(tmp_path / "canary")}, epoch=4, step=0)
    state, notes = checkpoints.load()
    assert not (tmp_path / "canary").exists()
    assert state is not None
    assert state["epoch"] == 3
    assert "last-00004" in notes[0]


def test_other_settings_are_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match=r"this run was started with other settings(.|\n)*lr was 1 and is 2"):
        require_same({"lr": 1, "epochs": 3}, {"lr": 2, "epochs": 3}, Path("out"))
