"""Binds the port and runs the application until it is to stop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from automl_pt.core.errors import OutputError
from automl_pt.core.text import printable

if TYPE_CHECKING:
    from automl_pt.model.load import Model
    from automl_pt.serving.limits import Limits

#: seconds for unfinished answers after the request to stop
_LAST = 10


@contextlib.contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """Yield a listening socket at `host` and `port` (0: any free one); raise OutputError if that fails."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server(address[:2], family=family, backlog=128)
    except (OSError, UnicodeError) as error:  # UnicodeError for an invalid name, such as "a..b"
        raise OutputError(
            "the server cannot listen at this address and port",
            given=f"{printable(host)}, port {port}: {getattr(error, 'strerror', None) or error}",
            remedy="choose another --port, 0 for any free one, or another --host",
        ) from error
    with listener:
        yield listener


def run(
    model: Model, listener: socket.socket, limits: Limits, *, hosts: tuple[str, ...], should_stop: Callable[[], bool]
) -> None:
    """Serve `model` on `listener` until `should_stop()`, called ten times a second; complete unfinished answers."""
    import uvicorn

    from automl_pt.serving.app import make_app
    from automl_pt.serving.server import protocol

    class Server(uvicorn.Server):
        """Stops on request; the command line handles signals."""

        # any context manager works; uvicorn's annotation is narrower
        def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
            return contextlib.nullcontext()

        async def on_tick(self, counter: int) -> bool:
            return should_stop() or await super().on_tick(counter)

    def is_crowded() -> bool:
        return len(server.server_state.connections) > limits.connections

    settings = uvicorn.Config(
        make_app(model, limits, hosts=hosts, is_crowded=is_crowded),
        http=protocol(limits.seconds),
        ws="none",
        loop="asyncio",
        lifespan="on",
        proxy_headers=False,
        server_header=False,
        # no access log, because untrusted text must not reach a terminal
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=_LAST,
    )
    server = Server(settings)
    server.run(sockets=[listener])


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
