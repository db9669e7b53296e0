"""Reads the image of a request: as multipart, as JSON with base64, or as the body itself."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from typing import TYPE_CHECKING, NamedTuple

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from automl_pt.core.json_reader import parse_json
from automl_pt.core.text import printable
from automl_pt.serving.clients import ServerBusy
from automl_pt.serving.decoding import busy

if TYPE_CHECKING:
    from starlette.types import Message

    from automl_pt.serving.clients import RequestPart
    from automl_pt.serving.limits import Limits

#: content types of bodies that are the image itself
_RAW = ("application/octet-stream", "image/")
_TAKES = "multipart/form-data with one file, application/json with base64 in `image`, or an image as the body"

#: seconds for which a refused body is read and discarded
_PATIENCE = 2.0
#: limit of structural characters in a JSON body with one image, because a list of a million numbers parses slowly
_STRUCTURE = 1000


class _TooLarge(Exception):  # noqa: N818  # converted to an answer with status 413
    """The body is larger than the limit."""


class Upload(NamedTuple):
    """An image file's content, and the name given by its sender."""

    name: str
    content: bytes


async def read_upload(request: Request, limits: Limits, part: RequestPart) -> Upload:
    """Return the one image of a request, whose bytes are counted in `part`.

    Raises HTTPException 400, 408, 413, 415 or 503, each with its reason, and ClientDisconnect.
    """
    try:
        async with asyncio.timeout(limits.seconds):
            return await _read(_bounded(request, limits, part))
    except TimeoutError as error:
        raise HTTPException(408, f"the body did not arrive within {limits.seconds:g} s") from error
    except _TooLarge as error:
        await _pass_over(request)
        raise HTTPException(
            413, f"the body is larger than the limit of {limits.bytes:,} bytes", {"connection": "close"}
        ) from error
    except ServerBusy as error:
        await _pass_over(request)
        refusal = busy(f"it holds {part.room.held:,} bytes of other requests", limits)
        raise HTTPException(503, refusal.detail, {**(refusal.headers or {}), "connection": "close"}) from error


async def _read(request: Request) -> Upload:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _from_form(request)
    if kind == "application/json":
        return _from_json(await request.body())
    if kind.startswith(_RAW):
        return Upload("image", await request.body())
    raise HTTPException(415, f"the body is {printable(kind) or 'of no type'}; accepted are {_TAKES}")


async def _from_form(request: Request) -> Upload:
    async with request.form(max_files=1, max_fields=8) as form:
        files = [value for value in form.values() if isinstance(value, UploadFile)]
        if not files:
            raise HTTPException(400, f"the form has no file; accepted are {_TAKES}")
        return Upload(files[0].filename or "image", await files[0].read())


def _from_json(body: bytes) -> Upload:
    try:
        if sum(body.count(sign) for sign in b",:[{") > _STRUCTURE:
            raise ValueError("more than one image")
        values = parse_json(body)
        encoded, name = values["image"], values.get("name", "image")
        if not isinstance(encoded, str) or not isinstance(name, str):
            raise TypeError("`image` and `name` are text")
        return Upload(name, base64.b64decode(encoded, validate=True))
    except binascii.Error as error:
        raise HTTPException(400, f"`image` is not base64: {error}") from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise HTTPException(400, 'the body is not JSON such as {"image": "BASE64", "name": "cat.jpg"}') from error


def _bounded(request: Request, limits: Limits, part: RequestPart) -> Request:
    """Return the request with a body that raises _TooLarge or NoRoom above a limit, regardless of its header."""
    said, taken = request.headers.get("content-length", ""), 0

    async def counted() -> Message:
        nonlocal taken
        if said.isdigit() and int(said) > limits.bytes:
            raise _TooLarge
        message = await request.receive()
        taken += len(message.get("body", b""))
        if taken > limits.bytes:
            raise _TooLarge
        part.add(len(message.get("body", b"")))
        return message

    return Request(request.scope, counted)


async def _pass_over(request: Request) -> None:
    """Read and discard the rest of the body for a while: a client that is cut off while sending reads no answer."""
    if "expect" in request.headers:
        return  # the client waits for permission to send, and is refused
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            while (message := await request.receive())["type"] == "http.request" and message.get("more_body"):
                pass
