"""Guards every request: only the server's own names and pages are accepted, and strict headers are added.

Another site's page can make a browser send requests to a server on the same machine. It can read the answer only if
it points its own name at this machine (DNS rebinding), which the Host header shows. Both are refused.
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
#: the page runs and shows only content of this server; pictures that it reads itself are `blob:`
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
    """Wraps an application: refuses requests by `refusal`, and adds the headers to every answer, including errors.

    While `is_crowded()` it answers with 503.
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
            return JSONResponse({"error": "all connections of the server are in use; ask again later"}, 503, _CROWDED)
        refused = refusal(Headers(scope=scope), self.hosts)
        return self.app if refused is None else JSONResponse({"error": refused[1]}, refused[0])


def known_as(host: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the accepted host names of a server that listens at `host` and was given `names`."""
    own = LOOPBACK if host in (*LOOPBACK, "0.0.0.0", "::") else (host,)
    return *own, *names


def refusal(headers: Headers, hosts: tuple[str, ...]) -> tuple[int, str] | None:
    """Return the status and the reason if a request is refused, else None; hosts in lower case."""
    host = _name(f"//{headers.get('host', '')}")
    if host is None or host not in hosts or len(headers.getlist("host")) != 1:
        return 421, "the Host header names another server; --allow-host accepts further names"
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != headers["host"].lower():
        return 403, "the request comes from a page of another origin"
    # following a link only shows the page, so it is allowed; forms have an Origin header
    follows_link = headers.get("sec-fetch-mode") == "navigate"
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not follows_link:
        return 403, "the request comes from a page of another site"
    return None


def _name(url: str) -> str | None:
    """Return the host name in lower case, without its port; None if there is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises if it is not a number
        return parts.hostname if parts.username is None else None
    except ValueError:
        return None
