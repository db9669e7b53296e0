"""The routes: the page, `POST /predict`, `/model`, `/health`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route

from automl_pt.core.files import to_json
from automl_pt.core.text import printable
from automl_pt.images.decode import UnreadableImage
from automl_pt.model.load import Model
from automl_pt.model.predict import prediction_of
from automl_pt.model.prediction_files import PredictionColumns
from automl_pt.serving.batching import Batcher
from automl_pt.serving.clients import Capacity, ClientLeft, while_here
from automl_pt.serving.guard import LOOPBACK, Guard
from automl_pt.serving.limits import Limits
from automl_pt.serving.requests import Upload, read_upload

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp

#: the page's files, without any text of the model: that comes from the routes and is inserted as text
_PAGE = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}

#: the usual status in logs for a client that has closed its connection; no client sees it
_CLIENT_LEFT = 499


def make_app(
    model: Model,
    limits: Limits | None = None,
    *,
    hosts: tuple[str, ...] = LOOPBACK,
    is_crowded: Callable[[], bool] = lambda: False,
) -> ASGIApp:
    """Return the ASGI application that serves `model` to requests for one of `hosts`.

    While the server `is_crowded` it answers with 503.
    """
    limits = limits or Limits()
    batcher, room = Batcher(model, limits), Capacity(limits)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with batcher:
            yield

    async def predict(request: Request) -> Response:
        asked = request.query_params
        top, preview = _top(asked.get("top"), len(model.classes)), asked.get("preview") == "1"
        with room.part() as part:
            return await while_here(request, _answer(batcher, await read_upload(request, limits, part), top, preview))

    async def about(request: Request) -> Response:
        return _json(describe(model, limits))

    async def health(request: Request) -> Response:
        counts = {"decoded": batcher.decoded, "images": batcher.images, "passes": batcher.passes}
        return _json({"status": "ok", **counts})

    routes = [
        Route("/predict", predict, methods=["POST"]),
        Route("/model", about),
        Route("/health", health),
        *(Route(path, _static(*which)) for path, which in _PAGE.items()),
    ]
    handlers: dict[Any, Any] = {HTTPException: _refused, UnreadableImage: _unreadable, Exception: _failed}
    handlers |= {ClientDisconnect: _left, ClientLeft: _left}
    return Guard(Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan), hosts, is_crowded)


def describe(model: Model, limits: Limits) -> dict[str, Any]:
    """Return the answer of `/model`: the model, its figures, and the server's limits."""
    info = model.info
    return {
        "backbone": info.backbone,
        "classes": list(info.classes),
        "image_size": info.preprocessing.image_size,
        "preprocessing": info.preprocessing.to_dict(),
        "metrics": info.metrics,
        "versions": info.versions,
        "device": str(model.device),
        "temperature": model.temperature,
        "unsure": None if model.rule is None else model.rule.to_dict(),
        "limits": {"bytes": limits.bytes, "pixels": limits.pixels},
    }


async def _answer(batcher: Batcher, upload: Upload, top: int | None, preview: bool) -> Response:
    """Answer with the fields of a `predict` row in JSON Lines, and on request with a small picture."""
    model = batcher.model
    prediction = prediction_of(model, Path(upload.name), await batcher.output(upload.content, upload.name))
    answer = PredictionColumns(model.classes, top, model.rule is not None).as_object(prediction)
    return _json(answer | ({"preview": await batcher.preview(upload.content, upload.name)} if preview else {}))


def _top(asked: str | None, classes: int) -> int | None:
    if asked is None:
        return None
    if not (asked.isascii() and asked.isdigit() and len(asked) < 10 and int(asked) > 0):
        raise HTTPException(400, "`top` must be a number of classes above 0")
    return min(int(asked), classes)


def _static(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    content = (files("automl_pt.serving") / "page" / name).read_bytes()

    async def answer(request: Request) -> Response:
        return Response(content, media_type=kind)

    return answer


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json({"error": error.detail}, error.status_code, dict(error.headers or {}))


async def _left(request: Request, error: Exception) -> Response:
    """Answer a client that has left, which is not an error of the server."""
    return Response(status_code=_CLIENT_LEFT)


async def _unreadable(request: Request, error: Exception) -> Response:
    assert isinstance(error, UnreadableImage)
    return _json({"error": printable(error.reason)}, 413 if error.kind == "huge" else 422)


async def _failed(request: Request, error: Exception) -> Response:
    """Answer in JSON; the error itself is re-raised, so that the server reports it."""
    return _json({"error": "the server failed; its output says why"}, 500)


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Answer in ASCII, so that any class name is transmitted safely."""
    return Response(to_json(value), status, headers, "application/json")
