"""Reports the failures of checks, and blocks the network."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from automl_pt.core.errors import PluginError


def expect(held: bool, rule: str, *, came: str, look: str) -> None:
    """Raise PluginError unless the rule held: it states the rule, the result, and where to look."""
    if not held:
        raise PluginError(rule, given=came, remedy=look)


@contextmanager
def no_network() -> Iterator[None]:
    """Make every connection fail at once, as on a machine without a network."""

    def refuse(*arguments: Any, **options: Any) -> NoReturn:
        raise OSError("the network is closed during this check")

    names = ("connect", "connect_ex", "sendto")
    before = {name: getattr(socket.socket, name) for name in names}
    lookup = socket.getaddrinfo
    for name in names:
        setattr(socket.socket, name, refuse)
    socket.getaddrinfo = refuse
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(socket.socket, name, function)
        socket.getaddrinfo = lookup
