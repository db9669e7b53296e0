"""Ctrl-C, SIGTERM and the like: the first asks the run to save and end, the second ends the process at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import click

from automl_pt.cli.streams import readers_left

#: what the command is doing when the signal arrives, and what the signal then does
READING = "stopping: still reading images, no step is under way that must be saved; once more to leave at once"
STEPPING = "stopping: finishing the step and saving; once more to leave at once"
#: Ctrl-C; the end of a session, container or machine; a closed terminal; a cluster's warning that a job's
#: time is nearly over, as with `sbatch --signal=USR1@60`
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name))


@dataclass
class Stop:
    """The signal that requested a stop, if any; `says` is the answer to the first one."""

    says: str
    received: int | None = None

    @property
    def signal(self) -> int | None:
        """Return the signal; that of a closed pipe once the readers of both outputs have gone."""
        if self.received is None and readers_left():
            return int(getattr(signal, "SIGPIPE", signal.SIGTERM))
        return self.received

    @property
    def exit_code(self) -> int:
        """Return the shell's exit code of a process ended by that signal: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signal if self.signal is not None else 0

    def obey(self) -> None:
        """End the command if a signal requested it while images are read, when there is nothing to save."""
        if self.signal is not None:
            raise click.exceptions.Exit(self.exit_code)


@contextmanager
def stopping(says: str) -> Iterator[Stop]:
    """Catch `SIGNALS` inside the block and print a note; only the main thread may do so.

    An ignored SIGHUP stays ignored, because `nohup` sets it so that the command outlives its terminal.
    """
    stop = Stop(says)

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.received is not None:
            # files are only ever replaced as a whole, so leaving now loses no more than the step under way
            os._exit(128 + number)
        stop.received = number
        print(f"\n{stop.says}", file=sys.stderr, flush=True)

    hangup = getattr(signal, "SIGHUP", None)
    ignored = {hangup} if hangup is not None and signal.getsignal(hangup) is signal.SIG_IGN else set()
    before = {number: signal.signal(number, handle) for number in SIGNALS if number not in ignored}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def until_told(stop: Stop, preparing: Callable[[str, int, int], None]) -> Callable[[str, int, int], None]:
    """Return a callback that shows the progress of reading and ends the command on a signal."""

    def show(what: str, done: int, total: int) -> None:
        preparing(what, done, total)
        stop.obey()

    return show
