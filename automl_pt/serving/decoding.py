"""Schedules decoding: the smallest waiting image first, large ones on half of the threads, none for absent clients.

So a small image is answered soon, because large images never occupy all threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch
from starlette.exceptions import HTTPException

from automl_pt.core.cores import available_cores
from automl_pt.serving.limits import is_large

if TYPE_CHECKING:
    from automl_pt.serving.limits import Limits

T = TypeVar("T")


def busy(reason: str, limits: Limits) -> HTTPException:
    """Return the answer to a request that the server has no capacity for: 503, and when to ask again."""
    headers = {"retry-after": str(max(1, round(limits.wait)))}
    return HTTPException(503, f"the server is busy: {reason}; ask again later", headers)


def threads(name: str, workers: int, share: int) -> ThreadPoolExecutor:
    """Return a pool whose threads compute with `share` threads each."""
    return ThreadPoolExecutor(workers, thread_name_prefix=name, initializer=partial(torch.set_num_threads, share))


@dataclass(eq=False)
class _Job:
    """An image with its number of pixels that waits or is being decoded."""

    pixels: int
    action: Callable[[], object]
    result: asyncio.Future[object]


class Decoders:
    """Threads that decode; `limits.queue` limits the pixels they hold, and `limits.wait` how long an image waits.

    Large images and others have separate limits, so that neither blocks the other. All methods are called
    on the event loop's thread.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits, self.count = limits, max(2, available_cores())
        self.pool = threads("decode", self.count, 1)
        self.waiting, self.running = list[_Job](), list[_Job]()

    async def run(self, pixels: int, action: Callable[[], T]) -> T:
        """Return the result of `action`, which decodes this many pixels; raise HTTPException 503 without capacity.

        It is not started if the caller is cancelled.
        """
        held = sum(job.pixels for job in (*self.waiting, *self.running) if is_large(job.pixels) == is_large(pixels))
        if held and held + pixels > self.limits.queue:
            raise busy(f"images of {held:,} pixels wait, and the limit is {self.limits.queue:,}", self.limits)
        loop = asyncio.get_running_loop()
        job = _Job(pixels, action, loop.create_future())
        self.waiting.append(job)
        patience = loop.call_later(self.limits.wait, self._give_up, job)
        self._start()
        try:
            return await job.result  # type: ignore[return-value]  # what the action returned
        finally:
            patience.cancel()
            if job in self.waiting:
                self.waiting.remove(job)

    def close(self) -> None:
        """End the threads after their current jobs."""
        self.pool.shutdown(wait=True, cancel_futures=True)

    def _start(self) -> None:
        """Assign jobs to free threads, the smallest first."""
        while len(self.running) < self.count and self.waiting:
            job = min(self.waiting, key=lambda job: job.pixels)  # the first of equal ones
            large = sum(is_large(other.pixels) for other in self.running)
            if is_large(job.pixels) and large >= self.count // 2:
                return  # all waiting images are large
            self.waiting.remove(job)
            if job.result.done():
                continue  # its client has left
            self.running.append(job)
            loop = asyncio.get_running_loop()
            self.pool.submit(job.action).add_done_callback(partial(_on, loop, self._finish, job))

    def _finish(self, job: _Job, done: Future[object]) -> None:
        self.running.remove(job)
        if not job.result.done():
            error = done.exception()
            if error is None:
                job.result.set_result(done.result())
            else:
                job.result.set_exception(error)
        self._start()

    def _give_up(self, job: _Job) -> None:
        if job in self.waiting and not job.result.done():
            self.waiting.remove(job)
            job.result.set_exception(busy(f"an image waited for {self.limits.wait:g} s", self.limits))


def _on(
    loop: asyncio.AbstractEventLoop, finish: Callable[[_Job, Future[object]], None], job: _Job, done: Future[object]
) -> None:
    """Tell the loop's thread that a job has ended, unless the loop was closed meanwhile."""
    if not (loop.is_closed() or done.cancelled()):
        loop.call_soon_threadsafe(finish, job, done)
