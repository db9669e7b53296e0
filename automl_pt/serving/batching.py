"""Batches requests: images that arrive during a forward pass are processed together in the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from automl_pt.core.cores import available_cores
from automl_pt.images.thumbnail import thumbnail
from automl_pt.model.predict import Output, needs_features, run_batch
from automl_pt.serving.decoding import Decoders, busy, threads
from automl_pt.serving.limits import Limits, pixels_of, size_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from automl_pt.model.load import Model

#: longest side of a picture for the page, in pixels
PREVIEW = 256
#: an image with the future of what the network returns for it
Waiting = tuple["NDArray[np.uint8]", "asyncio.Future[Output]"]


class Batcher:
    """Runs the network on images that arrive one by one, without waiting for a batch to fill.

    Used as an asynchronous context manager. Threads decode; one more thread runs the network on all images that are
    ready, at most `limits.batch`. No work is started for a cancelled caller.
    """

    def __init__(self, model: Model, limits: Limits) -> None:
        self.model, self.limits = model, limits
        self.waiting: deque[Waiting] = deque()
        self.arrived = asyncio.Event()
        self.headers, self.decoders = threads("headers", 1, 1), Decoders(limits)
        # half of the cores, because threads on all of them would spin while waiting for the decoding threads
        self.network = threads("network", 1, max(1, available_cores() // 2))
        #: totals: decoded images, forward passes, and images in them
        self.decoded = self.passes = self.images = 0

    async def __aenter__(self) -> Batcher:
        self.worker = asyncio.create_task(self._work())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.worker.cancel()
        self.decoders.close()
        for pool in (self.headers, self.network):
            pool.shutdown(wait=True, cancel_futures=True)

    async def output(self, content: bytes, name: str) -> Output:
        """Return what the network returns for one image file's content; raise UnreadableImage, or HTTPException 503."""
        loop, rule = asyncio.get_running_loop(), self.model.info.preprocessing
        count = await self._size(content, name)
        pixels = await self.decoders.run(count, partial(pixels_of, content, name, rule))
        self.decoded += 1
        waiting: Waiting = pixels, loop.create_future()
        self.waiting.append(waiting)
        self.arrived.set()
        patience = loop.call_later(self.limits.wait, self._give_up, waiting)
        try:
            return await waiting[1]
        finally:
            patience.cancel()

    async def preview(self, content: bytes, name: str) -> str | None:
        """Return a small JPEG picture of an image file's content as a data URI; raise as `output`."""
        return await self.decoders.run(await self._size(content, name), partial(thumbnail, content, PREVIEW))

    async def _size(self, content: bytes, name: str) -> int:
        """Return an image's number of pixels; raise UnreadableImage."""
        return await asyncio.get_running_loop().run_in_executor(self.headers, size_of, content, name, self.limits)

    def _give_up(self, waiting: Waiting) -> None:
        """Answer an image that no forward pass has processed in time."""
        if any(other is waiting for other in self.waiting) and not waiting[1].done():
            waiting[1].set_exception(busy(f"an image waited for the network for {self.limits.wait:g} s", self.limits))

    async def _work(self) -> None:
        while True:
            await self.arrived.wait()
            self.arrived.clear()
            while batch := self._next():
                await self._pass(batch)

    def _next(self) -> list[Waiting]:
        """Return the images of the next forward pass, without those whose clients have left or were refused."""
        batch: list[Waiting] = []
        while self.waiting and len(batch) < self.limits.batch:
            waiting = self.waiting.popleft()
            if not waiting[1].done():
                batch.append(waiting)
        return batch

    async def _pass(self, batch: list[Waiting]) -> None:
        """Run the network once; an error is raised in each request of the batch."""
        pixels = np.stack([pixels for pixels, _ in batch])
        try:
            rows = await asyncio.get_running_loop().run_in_executor(
                self.network, run_batch, self.model, pixels, needs_features(self.model)
            )
        except Exception as error:  # any error, because the requests raise it
            for _, row in batch:
                if not row.done():
                    row.set_exception(error)
            return
        self.passes, self.images = self.passes + 1, self.images + len(batch)
        for (_, row), values in zip(batch, rows, strict=True):
            if not row.done():
                row.set_result(values)
