"""HTTP as uvicorn speaks it, but for connections on which no request comes: it would hold them for ever."""

from __future__ import annotations

import asyncio
from functools import cache

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


@cache
def protocol(seconds: float) -> type[H11Protocol]:
    """Return the protocol that closes a connection when a request's head has not arrived within `seconds`.

    So nobody keeps all the connections that the server allows by opening them and saying little or nothing. The time
    between two requests of a connection is uvicorn's own, and shorter.
    """

    class Protocol(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None

        # uvicorn, too, names a narrower transport than asyncio does
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._wait()

        def _wait(self) -> None:
            """Let the time run while a head is still to come; it does not begin anew with each byte."""
            if self.conn.their_state is h11.IDLE:
                self._deadline = self._deadline or self.loop.call_later(seconds, self.timeout_keep_alive_handler)
            elif self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return Protocol
