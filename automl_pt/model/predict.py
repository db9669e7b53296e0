"""Prediction over any number of files in bounded memory: threads decode ahead, the network runs on whole batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from automl_pt.images.decode import UnreadableImage, decode
from automl_pt.model.load import Model
from automl_pt.training.device import available_cores

#: batches decoded or being decoded before the one the network works on
AHEAD = 3
Pixels = NDArray[np.uint8] | UnreadableImage
#: a path, an array uint8[H, W, 3] or [H, W], or the error that getting it met
S = TypeVar("S", bound=Path | NDArray[np.uint8] | UnreadableImage)


@dataclass(frozen=True)
class Prediction:
    """One image's result: probabilities float32[C], or the reason why the file could not be read."""

    path: Path
    probabilities: NDArray[np.float32] | None
    error: str | None = None


def predict_files(
    model: Model, paths: Iterable[Path], *, batch_size: int = 64, threads: int | None = None
) -> Iterator[Prediction]:
    """Yield a prediction for each path, in order; a file that cannot be read is a prediction with its reason."""
    for path, outcome in outcomes(model, paths, batch_size=batch_size, threads=threads):
        if isinstance(outcome, UnreadableImage):
            yield Prediction(path, None, outcome.reason)
        else:
            yield Prediction(path, model.probabilities(outcome))


def outcomes(
    model: Model, sources: Iterable[S], *, batch_size: int = 64, threads: int | None = None
) -> Iterator[tuple[S, NDArray[np.float32] | UnreadableImage]]:
    """Yield each path or array with its logits float32[C], or with the error that reading it met, in order.

    Holds the pixels of a few batches at a time, whatever the number of sources. `threads` decode images (default: one
    for each core this process may use).
    """
    for batch, decoded in _decoded(sources, model.info.preprocessing.image_size, batch_size, threads):
        readable = [image for image in decoded if not isinstance(image, UnreadableImage)]
        rows = iter(model.forward(np.stack(readable))) if readable else iter(())
        for source, image in zip(batch, decoded, strict=True):
            yield source, image if isinstance(image, UnreadableImage) else next(rows)


def _decoded(
    sources: Iterable[S], image_size: int, batch_size: int, threads: int | None
) -> Iterator[tuple[tuple[S, ...], list[Pixels]]]:
    """Yield batches with their pixels, decoded by threads at most `AHEAD` batches before they are wanted."""
    waiting: deque[tuple[tuple[S, ...], list[Future[Pixels]]]] = deque()
    rest = iter(sources)
    with _pool(threads or available_cores()) as pool:
        while batch := tuple(islice(rest, batch_size)):
            waiting.append((batch, [pool.submit(_decode, source, image_size) for source in batch]))
            if len(waiting) > AHEAD:
                yield _finished(waiting)
        while waiting:
            yield _finished(waiting)


def _finished(waiting: deque[tuple[tuple[S, ...], list[Future[Pixels]]]]) -> tuple[tuple[S, ...], list[Pixels]]:
    batch, futures = waiting.popleft()
    return batch, [future.result() for future in futures]


@contextmanager
def _pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool that is left at once, without decoding what nobody will read, when its user is."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _decode(source: Path | NDArray[np.uint8] | UnreadableImage, image_size: int) -> Pixels:
    if isinstance(source, UnreadableImage):
        return source
    try:
        return decode(source, image_size)
    except UnreadableImage as error:
        return error
