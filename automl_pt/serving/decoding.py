"""Which image is decoded next: the smallest that waits, large ones on half of the threads, none for a client that left.

So a small image is answered soon, whatever others have sent: no large image ever has all the threads.
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
    """Return the answer to a request that the server has no room for now: 503, and when to ask again."""
    headers = {"retry-after": str(max(1, round(limits.wait)))}
    return HTTPException(503, f"the server is busy: {reason}; ask again later", headers)


def threads(name: str, workers: int, share: int) -> ThreadPoolExecutor:
    """Return threads that compute with `share` threads each."""
    return ThreadPoolExecutor(workers, thread_name_prefix=name, initializer=partial(torch.set_num_threads, share))


@dataclass(eq=False)
class _Job:
    """An image of so many pixels that waits or is being decoded."""

    pixels: int
    action: Callable[[], object]
    result: asyncio.Future[object]


class Decoders:
    """Threads that decode; `limits.queue` bounds the pixels that they hold, and `limits.wait` how long one waits.

    Large images and others are bounded each for themselves, so that neither keeps the other out. All methods are called
    on the event loop's thread.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits, self.count = limits, max(2, available_cores())
        self.pool = threads("decode", self.count, 1)
        self.waiting, self.running = list[_Job](), list[_Job]()

    async def run(self, pixels: int, action: Callable[[], T]) -> T:
        """Return what `action` returns, which decodes so many pixels; raise HTTPException 503 where there is no room.

        It is not begun once the caller was cancelled.
        """
        held = sum(job.pixels for job in (*self.waiting, *self.running) if is_large(job.pixels) == is_large(pixels))
        if held and held + pixels > self.limits.queue:
            raise busy(f"images of {held:,} pixels wait, and {self.limits.queue:,} may", self.limits)
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
        """End the threads once they have done what they are at."""
        self.pool.shutdown(wait=True, cancel_futures=True)

    def _start(self) -> None:
        """Hand jobs to threads that are free, the smallest first."""
        while len(self.running) < self.count and self.waiting:
            job = min(self.waiting, key=lambda job: job.pixels)  # of equal ones the first that came
            large = sum(is_large(other.pixels) for other in self.running)
            if is_large(job.pixels) and large >= self.count // 2:
                return  # all that wait are large
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
    """Tell the loop's thread that a thread has ended its job; a loop that was closed meanwhile needs no telling."""
    if not (loop.is_closed() or done.cancelled()):
        loop.call_soon_threadsafe(finish, job, done)
