"""Runs a plugin's own code so that it can neither block the command nor change global states unnoticed."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

#: limit in seconds of a plugin's import or hook; importing torch from a cold disk takes a third of it
TIME_LIMIT = 60.0


class TooSlow(Exception):  # noqa: N818  # converted to a PluginError, which names the plugin
    """A plugin's code exceeded its time limit."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TooSlow in the block after `seconds`, where the system can: on POSIX, in the main thread.

    A library that hangs without returning to Python is not interrupted.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlow(f"it took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    # repeatedly, because a library that retries may take the first exception for an error of its own
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def guarded(limit: float | None = None) -> Iterator[list[str]]:
    """Limit the block to `limit` seconds, and restore the global states it changed; yields a list of their names.

    A state of a library that was not imported before the block is compared with the library's initial state.
    """
    before, changed = _states(), list[str]()
    try:
        with time_limit(TIME_LIMIT if limit is None else limit):
            yield changed
    finally:
        for name, (found, put_back) in _states().items():
            earlier = before[name][0] if name in before else _UNTOUCHED.get(name, found)
            if str(found) != str(earlier):
                changed.append(name)
                put_back(earlier)


def _states() -> dict[str, tuple[Any, Callable[[Any], Any]]]:
    """Return, by name, each global state that affects results and its setter; imports nothing."""
    found: dict[str, tuple[Any, Callable[[Any], Any]]] = {
        "Python's random state": (random.getstate(), random.setstate),
        "the working folder": (_working_folder(), _go_back),
    }
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None:
        found["NumPy's random state"] = (numpy.random.get_state(), numpy.random.set_state)
    if torch is not None:
        found["torch's seed"] = (torch.initial_seed(), torch.manual_seed)
        found["torch's default dtype"] = (str(torch.get_default_dtype()), lambda name: _set_dtype(torch, name))
        found["torch's default device"] = (str(torch.get_default_device()), torch.set_default_device)
        found["torch's threads"] = (torch.get_num_threads(), torch.set_num_threads)
        deterministic = torch.are_deterministic_algorithms_enabled()
        found["torch's deterministic mode"] = (deterministic, torch.use_deterministic_algorithms)
    return found


def _working_folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # the folder was removed; that is not this block's error
        return ""


def _go_back(folder: str) -> None:
    with suppress(FileNotFoundError):  # the plugin removed the former working folder
        os.chdir(folder)


def _set_dtype(torch: Any, name: str) -> None:
    torch.set_default_dtype(getattr(torch, name.removeprefix("torch.")))


#: torch's initial states, for plugins that import it first; the seed is not here, because it differs per process
_UNTOUCHED: dict[str, Any] = {
    "torch's default dtype": "torch.float32",
    "torch's default device": "cpu",
    "torch's deterministic mode": False,
}
