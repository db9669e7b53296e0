"""Standard streams that are closed, full or unread cost no command its work or its exit code."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import command, write_plugin

from automl_pt.cli.streams import Descriptor, Output

PROGRAM = f"{sys.executable} -m automl_pt"


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


@pytest.mark.parametrize(
    ("redirected", "code", "said"),
    [
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        ("2>/dev/full", 0, ""),
        ("| true; exit ${PIPESTATUS[0]}", 0, ""),
        (">/dev/full", 1, "standard output: No space left on device"),
        (">/dev/full 2>/dev/full", 1, ""),
    ],
)
def test_a_listing_ends_with_a_code_of_its_own(redirected: str, code: int, said: str) -> None:
    done = shell(f"{PROGRAM} plugins {redirected}")
    assert done.returncode == code, done.stderr
    assert said in done.stderr if said else not done.stderr


@pytest.mark.parametrize("redirected", ["| head -n 1; exit ${PIPESTATUS[0]}", ">&- 2>&-"])
def test_a_training_goes_on_where_nobody_reads(tiny_folder: Path, tmp_path: Path, redirected: str) -> None:
    words = command(tiny_folder, tmp_path / "run", write_plugin(tmp_path), epochs=2, patience=2)
    done = shell(f"{' '.join(words)} {redirected}")
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "run" / "history.jsonl").read_text().splitlines()) == 2
    assert (tmp_path / "run" / "model.json").exists()
    assert ("the work continues" in done.stderr) == ("&-" not in redirected)


def test_a_training_whose_readers_have_all_gone_stops_and_resumes(tiny_folder: Path, tmp_path: Path) -> None:
    words = command(tiny_folder, tmp_path / "run", write_plugin(tmp_path), epochs=2, patience=2)
    done = shell(f"{' '.join(words)} 2>&1 | true; exit ${{PIPESTATUS[0]}}")
    assert (done.returncode, done.stdout, done.stderr) == (141, "", "")
    assert not (tmp_path / "run" / "model.json").exists()
    assert shell(" ".join(words)).returncode == 0
    assert len((tmp_path / "run" / "history.jsonl").read_text().splitlines()) == 2


def test_a_name_that_the_terminal_cannot_show_is_escaped(tmp_path: Path) -> None:
    (tmp_path / "кот.py").write_text(
        "from automl_pt import hookimpl\n\n@hookimpl\ndef register_backbones(): return []\n"
    )
    done = shell(f"{PROGRAM} plugins --plugin {tmp_path}/*.py", PYTHONIOENCODING="latin-1")
    assert done.returncode == 0, done.stderr
    assert "\\u043a\\u043e\\u0442" in done.stdout


def test_a_descriptor_drops_what_cannot_be_written_and_says_so_once() -> None:
    reader, writer = os.pipe()
    told: list[OSError] = []
    output = Output(told.append)
    raw = Descriptor(writer, output)
    assert raw.write(b"seen") == 4
    assert os.read(reader, 10) == b"seen"
    os.close(reader)
    assert [raw.write(b"lost"), raw.write(b"too")] == [4, 3]
    assert [error.errno for error in told] == [errno.EPIPE]
    assert output.reader_left
    os.close(writer)


def test_a_reader_that_is_behind_is_waited_for() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    process = subprocess.Popen(["sh", "-c", "sleep 0.2; wc -c"], stdin=reader, stdout=subprocess.PIPE)
    os.close(reader)
    raw, content = Descriptor(writer, Output()), memoryview(bytes(300_000))
    while content:
        content = content[raw.write(content) :]
    os.close(writer)
    assert process.communicate()[0].strip() == b"300000"
