"""Who is still there to read an answer, and how much of what they sent is held."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from starlette.requests import Request

    from automl_pt.serving.limits import Limits

T = TypeVar("T")


class ClientLeft(Exception):  # noqa: N818  # nobody is there to whom it would be an error
    """The client closed its connection before it was answered."""


async def while_here(request: Request, work: Coroutine[object, object, T]) -> T:
    """Return what `work` returns; cancel it, and raise ClientLeft, once the client has closed its connection.

    The body of `request` has been read to its end before.
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


class ServerBusy(Exception):  # noqa: N818  # it becomes an answer with status 503, no error
    """The bodies of other requests fill what the server holds."""


class Capacity:
    """Counts the bytes of the bodies that are held."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.held = limits, 0

    @contextmanager
    def part(self) -> Iterator[RequestPart]:
        """Give one request its part, which is free again at the end."""
        part = RequestPart(self)
        try:
            yield part
        finally:
            self.held -= part.bytes


class RequestPart:
    """What one request holds."""

    def __init__(self, room: Capacity) -> None:
        self.room, self.bytes = room, 0

    def add(self, count: int) -> None:
        """Take so many bytes more; raise NoRoom where there are none left, but never to a small request."""
        self.bytes += count
        self.room.held += count
        if self.bytes > self.room.limits.small and self.room.held > self.room.limits.held:
            raise ServerBusy
