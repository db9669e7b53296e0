"""uvicorn's HTTP protocol, with a time limit for connections without a request."""

from __future__ import annotations

import asyncio
from functools import cache

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


@cache
def protocol(seconds: float) -> type[H11Protocol]:
    """Return the protocol that closes a connection if a request's head has not arrived within `seconds`.

    So no client can hold all connections by opening them and sending little or nothing. The time between two requests
    of a connection is uvicorn's own limit, which is shorter.
    """

    class Protocol(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None

        # uvicorn's annotation, too, is a narrower transport than asyncio's
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._wait()

        def _wait(self) -> None:
            """Start the timer if a head is incomplete; further bytes do not restart it."""
            if self.conn.their_state is h11.IDLE:
                self._deadline = self._deadline or self.loop.call_later(seconds, self.timeout_keep_alive_handler)
            elif self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return Protocol
