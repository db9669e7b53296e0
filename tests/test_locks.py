from __future__ import annotations

import subprocess
import sys
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
