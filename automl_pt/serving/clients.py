"""Tracks whether clients are still connected, and how many bytes of their bodies are held."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from starlette.requests import Request

    from automl_pt.serving.limits import Limits

T = TypeVar("T")


class ClientLeft(Exception):  # noqa: N818  # not an error, because no client is connected
    """The client closed its connection before it was answered."""


async def while_here(request: Request, work: Coroutine[object, object, T]) -> T:
    """Return the result of `work`; cancel it, and raise ClientLeft, when the client closes its connection.

    The body of `request` must have been read completely.
    """
    task, left = asyncio.ensure_future(work), asyncio.ensure_future(_departure(request))
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientLeft
    finally:
        task.cancel()
        left.cancel()


async def _departure(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class ServerBusy(Exception):  # noqa: N818  # converted to an answer with status 503
    """The bodies of other requests use all of the server's limit."""


class Capacity:
    """Counts the bytes of the bodies in memory."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.held = limits, 0

    @contextmanager
    def part(self) -> Iterator[RequestPart]:
        """Yield one request's part, which is released at the end."""
        part = RequestPart(self)
        try:
            yield part
        finally:
            self.held -= part.bytes


class RequestPart:
    """The bytes that one request holds."""

    def __init__(self, room: Capacity) -> None:
        self.room, self.bytes = room, 0

    def add(self, count: int) -> None:
        """Reserve more bytes; raise NoRoom if none are free, but never for a small request."""
        self.bytes += count
        self.room.held += count
        if self.bytes > self.room.limits.small and self.room.held > self.room.limits.held:
            raise ServerBusy
