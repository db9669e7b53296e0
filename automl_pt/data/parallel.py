"""Calls a function on many items in threads, with results in order and a bounded number of items in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

#: items in flight per thread, so that no thread waits for a slow neighbour
AHEAD = 4


def in_order(function: Callable[[T], R], items: Iterable[T], *, threads: int, ahead: int = AHEAD) -> Iterator[R]:
    """Yield `function(item)` for each of `items`, in order; items are consumed as threads become free.

    Threads, not processes, because hashing, decoding and resizing release Python's lock (a photo takes 0.57 ms of CPU
    time in two threads and 0.54 ms in one), and a process takes seconds to import torch. Raises what `function` raises,
    at that item's position.
    """
    with ThreadPoolExecutor(threads) as executor:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(executor.submit(function, item))
                if len(waiting) >= ahead * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Limit torch to one thread in threads started meanwhile; restore its number afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
