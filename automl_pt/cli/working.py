"""Says on standard error, where that is a terminal, what takes so long."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module


@contextmanager
def working(what: str, *, quiet: bool = False) -> Iterator[None]:
    """Show what is being done in the block."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True, highlight=False).status(what):
        yield


def load(module: str, *, quiet: bool = False) -> None:
    """Import a module that imports PyTorch, and say so meanwhile."""
    with working("loading PyTorch", quiet=quiet or "torch" in sys.modules):
        import_module(module)
