"""Many requests, one network: what arrives while a forward pass runs goes into the next one together."""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import torch

from automl_pt.cores import available_cores
from automl_pt.serving.limits import Limits, pixels_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from automl_pt.model.load import Model

#: an image that waits for its row of logits
Waiting = tuple["NDArray[np.uint8]", "asyncio.Future[NDArray[np.float32]]"]


class Batcher:
    """Computes logits for images that arrive one by one; nobody waits for a batch to fill.

    Used as an asynchronous context manager. Threads decode; one more thread runs the network on all images that are
    ready, at most `limits.batch` of them.
    """

    def __init__(self, model: Model, limits: Limits) -> None:
        self.model, self.limits = model, limits
        self.waiting: deque[Waiting] = deque()
        self.arrived = asyncio.Event()
        cores = available_cores()
        # half of the cores compute: on all of them, each would wait, spinning, for those that decode
        self.decoders = _threads("decode", cores, 1)
        self.network = _threads("network", 1, max(1, cores // 2))
        #: so far: forward passes, and images in them
        self.passes = self.images = 0

    async def __aenter__(self) -> Batcher:
        self.worker = asyncio.create_task(self._work())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.worker.cancel()
        self.decoders.shutdown(wait=True, cancel_futures=True)
        self.network.shutdown(wait=True, cancel_futures=True)

    async def logits(self, content: bytes, name: str) -> NDArray[np.float32]:
        """Return logits float32[C] of one image file's content; raise UnreadableImage."""
        loop, size = asyncio.get_running_loop(), self.model.info.preprocessing.image_size
        pixels = await loop.run_in_executor(self.decoders, pixels_of, content, name, size, self.limits)
        row: asyncio.Future[NDArray[np.float32]] = loop.create_future()
        self.waiting.append((pixels, row))
        self.arrived.set()
        return await row

    async def _work(self) -> None:
        while True:
            await self.arrived.wait()
            self.arrived.clear()
            while self.waiting:
                await self._pass([self.waiting.popleft() for _ in range(min(self.limits.batch, len(self.waiting)))])

    async def _pass(self, batch: list[Waiting]) -> None:
        """Run the network once; what goes wrong there is told to each request of the batch."""
        pixels = np.stack([pixels for pixels, _ in batch])
        try:
            rows = await asyncio.get_running_loop().run_in_executor(self.network, self.model.forward, pixels)
        except Exception as error:  # whatever it is, the requests raise it
            for _, row in batch:
                if not row.done():
                    row.set_exception(error)
            return
        self.passes, self.images = self.passes + 1, self.images + len(batch)
        for (_, row), values in zip(batch, rows, strict=True):
            if not row.done():
                row.set_result(values)


def _threads(name: str, workers: int, share: int) -> ThreadPoolExecutor:
    """Return threads that compute with `share` threads each."""
    return ThreadPoolExecutor(workers, thread_name_prefix=name, initializer=partial(torch.set_num_threads, share))
