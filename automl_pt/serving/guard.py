"""What stands before every request: only names this server is known by, only its own pages, and strict headers.

A page of somebody else's can make a browser ask a server on the same machine. It cannot read the answer, unless it
gives its own name this machine's address (DNS rebinding): then the Host header names it. Both are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("localhost", "127.0.0.1", "::1")
#: the page runs nothing and shows nothing that did not come from this server; pictures it reads itself are `blob:`
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_CROWDED = {"retry-after": "5", "connection": "close"}


class Guard:
    """Wraps an application: refuses what `refusal` says, and adds the headers to every answer, errors too.

    While `is_crowded()` it asks everybody to come again later.
    """

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...], is_crowded: Callable[[], bool]) -> None:
        self.app, self.hosts, self.is_crowded = app, tuple(host.lower() for host in hosts), is_crowded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._chosen(scope)(scope, receive, with_headers)

    def _chosen(self, scope: Scope) -> ASGIApp:
        if self.is_crowded():
            return JSONResponse({"error": "the server has no connection left; ask again later"}, 503, _CROWDED)
        refused = refusal(Headers(scope=scope), self.hosts)
        return self.app if refused is None else JSONResponse({"error": refused[1]}, refused[0])


def known_as(host: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names by which requests may call a server that listens at `host` and was given `names`."""
    own = LOOPBACK if host in (*LOOPBACK, "0.0.0.0", "::") else (host,)
    return *own, *names


def refusal(headers: Headers, hosts: tuple[str, ...]) -> tuple[int, str] | None:
    """Return the status and the reason for which a request is refused, None for one that is not; hosts lower case."""
    host = _name(f"//{headers.get('host', '')}")
    if host is None or host not in hosts or len(headers.getlist("host")) != 1:
        return 421, "this server does not go by the name in the Host header; --allow-host gives it another"
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != headers["host"].lower():
        return 403, "a page of another origin asked"
    # whoever follows a link, in a terminal that is itself a page for instance, only sees the page; forms have an origin
    follows_link = headers.get("sec-fetch-mode") == "navigate"
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not follows_link:
        return 403, "a page of another site asked"
    return None


def _name(url: str) -> str | None:
    """Return the host's name in lower case, without its port; None where there is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is no number
        return parts.hostname if parts.username is None else None
    except ValueError:
        return None
