"""Keeps the working folder off the import path, because a folder of images may hold any file.

Imports only modules that the interpreter has loaded already, because it runs before all other imports.
"""

from __future__ import annotations

import os
import sys


def leave_out_working_folder() -> None:
    """If this process is `python -m automl_pt`, remove the working folder from `sys.path`, where Python has put it."""
    # while Python looks for the module that -m names, the program's name is "-m"
    if sys.flags.safe_path or sys.argv[:1] != ["-m"] or not sys.path:
        return
    module = sys.orig_argv[-len(sys.argv)].rpartition("-m")[2]
    if module.partition(".")[0] == "automl_pt" and _is_working_folder(sys.path[0]):
        del sys.path[0]


def python_command() -> list[str]:
    """Return the command of another Python that never has the working folder, or a script's, on its path."""
    return [sys.executable, "-P"]


def python_environment() -> dict[str, str]:
    """Return this process's environment for another Python, so that it and its children import the same modules.

    PYTHONPATH gets all of `sys.path` except the working folder, unless the user has put that in PYTHONPATH or this
    package is in it.
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
