"""Keeps the working folder out of the places that modules are imported from: a folder of images may hold any file.

Imports nothing but what the interpreter has loaded before any path counts: it runs before all other imports.
"""

from __future__ import annotations

import os
import sys


def leave_out_working_folder() -> None:
    """Where this process is `python -m automl_pt`, take the working folder off `sys.path`, where Python has put it."""
    # while Python looks for the module that -m names, the program's name is "-m"
    if sys.flags.safe_path or sys.argv[:1] != ["-m"] or not sys.path:
        return
    module = sys.orig_argv[-len(sys.argv)].rpartition("-m")[2]
    if module.partition(".")[0] == "automl_pt" and _is_working_folder(sys.path[0]):
        del sys.path[0]


def python_command() -> list[str]:
    """Return how another Python is started that never puts the working folder, or a script's, on its path."""
    return [sys.executable, "-P"]


def python_environment() -> dict[str, str]:
    """Return this process's environment, with which another Python, and those that it starts, import what we can.

    That is all of `sys.path` but the working folder, unless the user has named it in PYTHONPATH, or this package lies
    in it. What is installed in the working folder is found by the other Python as it was by this one.
    """
    named = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    named.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    kept = {os.path.realpath(part) for part in named}
    paths = [path for path in sys.path if path and (not _is_working_folder(path) or os.path.realpath(path) in kept)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}


def _is_working_folder(path: str) -> bool:
    try:
        return not path or os.path.samefile(path, os.curdir)
    except OSError:  # an entry that does not exist, or a working folder that was removed
        return False
