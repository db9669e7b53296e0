from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from automl_pt.errors import OutputError
from automl_pt.locks import locked

HOLD = """
import sys, time
from pathlib import Path
from automl_pt.locks import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_is_refused_while_held_and_free_after_a_sigkill(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match="one process at a time works in a folder"), locked(path, wait=False):
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
