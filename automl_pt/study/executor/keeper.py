"""The process between a coordinator and a worker: it starts the worker, and ends everything the worker started.

A plugin's network may start processes, which do not end when the kernel kills a worker with its parent. So the worker
runs as a child of this process, which adopts orphaned descendants (on Linux), kills all of them when the worker ends
or the coordinator is gone, and then ends itself with the worker's status.
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
#: seconds between two checks whether the coordinator still runs, in case no event reports its end
LOOK = 0.5
#: seconds within which killed processes must have ended
ENDING = 1.5


def main() -> None:
    """Start the worker described by the command line, and watch it: see `worker.main`."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    # ignored here, because a job manager sends SIGTERM to all processes and the coordinator lets the trial save
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
        os._exit(0)  # do not wait for threads that a plugin left running
    leave_as(watch(child, descriptor, parent))


def die_with_parent(parent: int) -> None:
    """Ask the Linux kernel to kill this process when its parent dies; elsewhere the closed socket ends it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def watch(child: int, descriptor: int, parent: int) -> int:
    """Wait until the worker has ended or the coordinator is gone; kill the rest, and return the worker's status."""
    poll = select.poll()
    poll.register(descriptor, 0)  # poll always reports the end of the connection
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
    """Collect all ended children, adopted ones included: their status by process id."""
    found: dict[int, int] = {}
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            found[ended[0]] = ended[1]
    return found


def end_all(child: int) -> None:
    """Kill what the worker left running; on other systems than Linux, its process group."""
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
    """Return the ids of all processes below `root`; empty without /proc."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):  # the process has just ended
            parents[int(path.parent.name)] = int(path.read_text(errors="replace").rpartition(")")[2].split()[1])
    below, size = {root}, 0
    while size != len(below):
        size = len(below)
        below |= {process for process, parent in parents.items() if parent in below}
    return below - {root}


def leave_as(status: int) -> None:
    """End this process with a child's exit status."""
    if os.WIFSIGNALED(status):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the worker's own core dump is enough
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


if __name__ == "__main__":
    main()
