"""NVIDIA's MPS, by which processes compute on a GPU at the same time and not in turns, for as long as a search runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

CONTROL = "nvidia-cuda-mps-control"
#: seconds for the daemon to start, and to end
STARTING, ENDING = 20.0, 20.0
#: Starts the daemon, and ends it when standard input closes: so it ends with this process, however that dies.
_LIFE = f"{CONTROL} -d && echo started && {{ cat > /dev/null; echo quit | {CONTROL}; }}"


class Mps:
    """A daemon of this search's own; `environment` is what its clients need, empty where it does not run."""

    def __init__(self) -> None:
        self.environment: dict[str, str] = {}
        self._process: subprocess.Popen[str] | None = None
        self._folder: Path | None = None

    def start(self) -> str | None:
        """Start the daemon; return why it does not run, else None."""
        if shutil.which(CONTROL) is None:
            return f"MPS is not installed ({CONTROL}), so trials share a GPU in turns"
        if os.environ.get("CUDA_MPS_PIPE_DIRECTORY"):
            return None  # the user's own daemon serves
        self._folder = Path(tempfile.mkdtemp(prefix="automl-pt-mps-"))
        own = {"CUDA_MPS_PIPE_DIRECTORY": str(self._folder), "CUDA_MPS_LOG_DIRECTORY": str(self._folder)}
        # the daemon inherits no pipe of this process, and a file cannot fill up while no process reads it
        with open(self._folder / "output", "w+", encoding="utf-8", errors="replace") as output:
            self._process = subprocess.Popen(
                ["sh", "-c", _LIFE],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **own},
                process_group=0,  # so that Ctrl-C in the terminal does not end it before the trials have saved
                text=True,
            )
        said = self._await_start(self._folder / "output")
        if said is None:
            self.environment = own
            return None
        self.close()
        return f"MPS does not start ({said}), so trials share a GPU in turns"

    def close(self) -> None:
        """End the daemon."""
        self.environment = {}
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(ENDING)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _await_start(self, output: Path) -> str | None:
        """Return None once the daemon has started, else what it printed last."""
        assert self._process is not None
        for _ in range(int(STARTING / 0.05)):
            lines = output.read_text(encoding="utf-8", errors="replace").split("\n")
            if "started" in lines:
                return None
            with suppress(subprocess.TimeoutExpired):
                code = self._process.wait(0.05)
                lines = [line for line in output.read_text(encoding="utf-8", errors="replace").splitlines() if line]
                return None if "started" in lines else lines[-1][:200] if lines else f"exit code {code}"
        return f"nothing within {STARTING:g} s"
