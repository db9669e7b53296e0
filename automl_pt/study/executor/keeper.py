"""The process between a coordinator and a worker: it starts the worker, and leaves nothing of it behind.

A plugin's network may start processes of its own, and a kernel that ends a worker with its parent does not end those.
So the worker runs as a child of this process, which adopts whatever loses its parent below it (on Linux), ends all of
it when the worker ends or the coordinator is gone, and then ends itself as the worker did.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
#: seconds between two looks at whether the coordinator is still there, where nothing tells of it earlier
LOOK = 0.5
#: seconds in which the processes of a worker must have ended once they are killed
ENDING = 1.5


def main() -> None:
    """Start the worker that the command line describes, and watch it: see `worker.main`."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    # the coordinator's to handle, which lets the trial save: who ends a whole job sends SIGTERM to all its processes
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    keeper = os.getpid()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        die_with_parent(keeper)
        from automl_pt.study.executor import worker

        worker.main()
        os._exit(0)  # threads that a plugin left running do not keep the worker
    leave_as(watch(child, descriptor, parent))


def die_with_parent(parent: int) -> None:
    """Ask the Linux kernel to kill this process when its parent dies; elsewhere the socket's end does it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def watch(child: int, descriptor: int, parent: int) -> int:
    """Wait until the worker has ended or the coordinator is gone; end what is left, and return the worker's status."""
    poll = select.poll()
    poll.register(descriptor, 0)  # the end of the connection is told unasked
    ending = os.pidfd_open(child) if hasattr(os, "pidfd_open") else None
    if ending is not None:
        poll.register(ending, select.POLLIN)
    status = None
    while status is None:
        told = {number for number, _ in poll.poll(1000 * LOOK if ending is not None else 50)}
        status = reap().get(child)
        if status is None and (descriptor in told or os.getppid() != parent):
            os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
    end_all(child)
    return status


def reap() -> dict[int, int]:
    """Take note of all children that have ended, adopted ones too: their status by their number."""
    found: dict[int, int] = {}
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            found[ended[0]] = ended[1]
    return found


def end_all(child: int) -> None:
    """Kill what the worker left running; elsewhere than on Linux, what stayed in its process group."""
    deadline = time.monotonic() + ENDING
    while time.monotonic() < deadline:
        left = descendants(os.getpid())
        if sys.platform != "linux":
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child, signal.SIGKILL)
        for process in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        reap()
        if not left:
            return
        time.sleep(0.01)


def descendants(root: int) -> set[int]:
    """Return the numbers of all processes below `root`; none where the system has no /proc."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):  # it has ended meanwhile
            parents[int(path.parent.name)] = int(path.read_text(errors="replace").rpartition(")")[2].split()[1])
    below, size = {root}, 0
    while size != len(below):
        size = len(below)
        below |= {process for process, parent in parents.items() if parent in below}
    return below - {root}


def leave_as(status: int) -> None:
    """End this process as a child of that status has ended."""
    if os.WIFSIGNALED(status):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the worker's own is enough
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


if __name__ == "__main__":
    main()
