"""Standard output and error may be closed, full, or without a reader; no command ends because of that.

A closed descriptor is first opened on the null device, because the next opened file would otherwise take its number
and receive what is printed. After a failure further output is dropped, and `Output` stores the reason.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TextIO


@dataclass
class Output:
    """The state of standard output; `on_loss` is called once, when writing fails."""

    on_loss: Callable[[OSError], None] = lambda error: None
    lost: OSError | None = field(default=None, init=False)

    @property
    def reader_left(self) -> bool:
        """Return whether the reader closed the pipe, as `| head` does."""
        return self.lost is not None and self.lost.errno in (errno.EPIPE, errno.ECONNRESET)

    def lose(self, error: OSError) -> None:
        """Store why writing failed."""
        if self.lost is None:
            self.lost = error
            self.on_loss(error)


#: of this process; commands that only produce output end when its reader has closed the pipe
OUTPUT = Output()
ERRORS = Output()


def readers_left() -> bool:
    """Return whether the readers of both streams have closed them, as with `2>&1 | head`."""
    return OUTPUT.reader_left and ERRORS.reader_left


class Descriptor(io.RawIOBase):
    """A descriptor that drops what is written after the first failure."""

    def __init__(self, number: int, output: Output) -> None:
        super().__init__()
        self.number, self.output = number, output

    def writable(self) -> bool:
        """Return True, because writing never fails."""
        return True

    def fileno(self) -> int:
        """Return the descriptor's number."""
        return self.number

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return os.isatty(self.number)

    def write(self, content: object) -> int:
        """Write some or all of `content` and return how many bytes that were; all of it where it is dropped."""
        data = memoryview(content)  # type: ignore[arg-type]  # io calls it with bytes or a buffer
        try:
            return os.write(self.number, data)
        except BlockingIOError:
            return self._write_slowly(data)
        except OSError as error:
            self._drop(error)
        return data.nbytes

    def _write_slowly(self, data: memoryview) -> int:
        """Wait for a slow reader: another process made the shared pipe non-blocking."""
        import select

        select.select([], [self.number], [])
        return self.write(data)

    def _drop(self, error: OSError) -> None:
        """Point the descriptor to the null device, also for libraries and child processes that write to it."""
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, self.number)
        finally:
            os.close(null)
        self.output.lose(error)


@contextmanager
def lasting_streams(output: Output = OUTPUT) -> Iterator[Output]:
    """Within the block, keep standard output and error from ending the command; a test's own streams are unchanged."""
    _open_closed()
    output.lost = ERRORS.lost = None
    before = sys.stdout, sys.stderr
    sys.stdout = _lasting(sys.stdout, sys.__stdout__, 1, output)
    sys.stderr = _lasting(sys.stderr, sys.__stderr__, 2, ERRORS)
    try:
        yield output
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(ValueError):  # a stream that was closed
                stream.flush()
        if before[0] is not None and before[1] is not None:
            sys.stdout, sys.stderr = before


def _lasting(stream: TextIO | None, original: TextIO | None, number: int, output: Output) -> TextIO:
    """Return a stream that replaces one of this process.

    A stream set by a test stays, and so does a Windows console, which does not accept bytes.
    """
    if stream is not None and (stream is not original or (sys.platform == "win32" and stream.isatty())):
        return stream
    errors = "backslashreplace" if stream is None or stream.errors == "strict" else stream.errors
    encoding = "utf-8" if stream is None else stream.encoding
    if stream is not None:
        stream.flush()
    raw = Descriptor(number, output)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors, line_buffering=number == 2 or raw.isatty())


def _open_closed() -> None:
    """Open the null device under the numbers of standard streams that are closed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
            if number == 0:
                sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  # as long as the process
