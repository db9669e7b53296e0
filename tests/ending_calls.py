"""Functions called in worker processes that end them, or not, as a plugin's network might."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

from automl_pt.study.executor.base import Caller


def make(spec: object, should_stop: object) -> Iterator[None]:
    return iter(())


def end(how: str, mark: str, device: str, threads: int, caller: Caller) -> int:
    """End this process, or not, as a plugin's network might; runs in a worker."""
    if how == "fork":
        for _ in range(2):
            if os.fork() == 0:
                os.setsid()  # out of the worker's process group
                if os.fork() == 0:
                    os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(60)", mark])
                time.sleep(60)
        return threads
    if how == "return":
        return threads
    if how == "slow":  # longer than the limit, but never silent for so long
        deadline = time.monotonic() + 2.5
        while time.monotonic() < deadline:
            caller.alive()
            time.sleep(0.05)
        return threads
    if how == "until stopped":
        print("until stopped", flush=True)
        caller.tell("begun")
        while not caller.should_stop():
            time.sleep(0.05)
        return threads
    if how == "exit":
        os._exit(0)
    if how == "system-exit":
        raise SystemExit(0)
    if how == "raise":
        raise RuntimeError("boom")
    if how == "segv":
        os.kill(os.getpid(), 11)
    if how == "kill":
        os.kill(os.getpid(), 9)
    time.sleep(600)
    return 0
