"""Do what docs/how-to/write-a-plugin.md says, line by line, in a fresh environment and an empty home, and time it.

python benchmarks/plugin_quickstart.py     writes benchmarks/results/plugin_quickstart.txt, the transcript

The lines are copied from the page. What counts is the time from `plugins new` to the end of the trained epoch; the
environment before it is downloaded, or comes from uv's cache.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from itertools import takewhile
from pathlib import Path

from automl_pt.core.files import atomic_write

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "benchmarks" / "results" / "plugin_quickstart.txt"
#: printed after each line, to tell where what it says ends
DONE = "__done__"
_STEPS = re.compile(r"<!-- run: quickstart -->\n```sh\n(.*?)^```", re.S | re.M)


def steps() -> list[str]:
    """Return the page's lines."""
    found = _STEPS.search((ROOT / "docs" / "how-to" / "write-a-plugin.md").read_text())
    assert found is not None
    return found[1].splitlines()


def perform(home: Path) -> tuple[str, float]:
    """Run the lines in one shell whose home is `home`; return the transcript, and the seconds from `plugins new` on."""
    (home / "automl-pt").symlink_to(ROOT)
    cache = subprocess.run(["uv", "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    ours = ("AUTOML_PT_", "VIRTUAL_ENV", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment = {**kept, "HOME": str(home), "UV_CACHE_DIR": cache, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    transcript, counted, seconds = [], False, 0.0
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(["bash", "-e"], text=True, cwd=home, env=environment, **pipes) as shell:
        for line in steps():
            began = time.monotonic()
            shell.stdin.write(f"{line}\necho {DONE}\n")
            shell.stdin.flush()
            shown = [
                said.replace(str(home), "~") for said in takewhile(lambda said: said.strip() != DONE, shell.stdout)
            ]
            took = time.monotonic() - began
            counted = counted or "plugins new" in line
            seconds += took if counted else 0.0
            transcript += [f"$ {line}\n", *shown, f"# {took:.1f} s\n"]
            if shell.poll() is not None:
                raise SystemExit("".join(transcript))
    return "".join(transcript), seconds


def main() -> None:
    """Write the transcript."""
    with tempfile.TemporaryDirectory() as home:
        transcript, seconds = perform(Path(home))
    text = f"{transcript}# {seconds / 60:.1f} minutes from `plugins new` to the trained epoch\n"
    atomic_write(TARGET, text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
