"""Run the notebook of the tutorial and keep what its cells show: python docs/make_notebook.py

It is run in an empty folder, by the kernel of this environment.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent / "tutorial" / "notebook.ipynb"


def executed(folder: Path) -> Any:
    """Return the notebook after all its cells have run in `folder`; raises for one that fails."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}})
    client.execute()
    return notebook


def main() -> int:
    """Write the notebook with its output."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = executed(Path(folder))
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran
    nbformat.write(notebook, NOTEBOOK)
    return 0


if __name__ == "__main__":
    sys.exit(main())
