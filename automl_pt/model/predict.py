"""Predicts any number of files in bounded memory: threads decode ahead, the network runs on whole batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from automl_pt.images.decode import UnreadableImage, decode
from automl_pt.images.preprocessing import Preprocessing
from automl_pt.model.load import Model
from automl_pt.model.unsure import Answer
from automl_pt.training.device import available_cores

#: batches decoded ahead of the network
AHEAD = 3
#: concurrent forward passes on a CPU, which share the threads, so that no core waits at the end of a layer
PASSES = 2
Pixels = NDArray[Any] | UnreadableImage


class Output(NamedTuple):
    """What the network returns for an image: logits float32[C], and features float32[D] where they are needed."""

    logits: NDArray[np.float32]
    features: NDArray[np.float32] | None = None


Outcome = Output | UnreadableImage
#: a path, an array [H, W, C] or [H, W], or the error of reading it
S = TypeVar("S", bound=Path | NDArray[Any] | UnreadableImage)


@dataclass(frozen=True)
class Prediction:
    """One image's result: probabilities float32[C], or the reason why the file could not be read.

    `logits` float32[C], if present, decide the order of classes, because rounded probabilities may be equal. `answer`
    states the likely classes and whether it is unsure, if the model has a rule for that.
    """

    path: Path
    probabilities: NDArray[np.float32] | None
    error: str | None = None
    logits: NDArray[np.float32] | None = None
    answer: Answer | None = None


def prediction_of(model: Model, path: Path, output: Output) -> Prediction:
    """Return the prediction for what the network returned for the image at `path`."""
    answer = answer_of(model, output)
    return Prediction(path, model.probabilities(output.logits), logits=output.logits, answer=answer)


def answer_of(model: Model, output: Output) -> Answer | None:
    """Return the likely classes and whether the answer is unsure; None if the model has no rule for that."""
    if model.rule is None:
        return None
    features = None if output.features is None else output.features[None]
    return model.rule.answers(output.logits[None], features)[0]


def predict_files(
    model: Model, paths: Iterable[Path], *, batch_size: int = 64, threads: int | None = None
) -> Iterator[Prediction]:
    """Yield a prediction for each path, in order; for a file that cannot be read, with its reason."""
    for path, outcome in outcomes(model, paths, batch_size=batch_size, threads=threads):
        if isinstance(outcome, UnreadableImage):
            yield Prediction(path, None, outcome.reason)
        else:
            yield prediction_of(model, path, outcome)


def outcomes(
    model: Model,
    sources: Iterable[S],
    *,
    batch_size: int = 64,
    threads: int | None = None,
    features: bool = False,
) -> Iterator[tuple[S, Outcome]]:
    """Yield each path or array with what the network returns for it, or with its reading error, in order.

    Holds the pixels of a few batches at a time, for any number of sources. `threads` decode images (default: one
    for each core this process may use). Features are computed on request, and where the model's rule needs them.
    """
    needed = features or needs_features(model)
    waiting: deque[tuple[tuple[S, ...], Future[list[Outcome]]]] = deque()
    rest, cores = iter(sources), available_cores()
    passes = PASSES if model.device.type == "cpu" and cores >= PASSES else 1
    with _pool("decode", threads or cores, 1) as decoders, _pool("network", passes, _share(passes)) as networks:
        while batch := tuple(islice(rest, batch_size)):
            pixels = [decoders.submit(_decode, source, model.info.preprocessing) for source in batch]
            waiting.append((batch, networks.submit(_outcomes, model, pixels, needed)))
            if len(waiting) > AHEAD:
                yield from _finished(waiting)
        while waiting:
            yield from _finished(waiting)


def needs_features(model: Model) -> bool:
    """Return whether the model's rule for unsure answers compares features."""
    return model.rule is not None and model.rule.novelty is not None


def _finished(
    waiting: deque[tuple[tuple[S, ...], Future[list[Outcome]]]],
) -> Iterator[tuple[S, Outcome]]:
    batch, found = waiting.popleft()
    return zip(batch, found.result(), strict=True)


def _outcomes(model: Model, pixels: list[Future[Pixels]], features: bool) -> list[Outcome]:
    """Run the network on the readable images of a batch."""
    decoded = [future.result() for future in pixels]
    readable = [image for image in decoded if not isinstance(image, UnreadableImage)]
    rows = iter(run_batch(model, np.stack(readable), features) if readable else ())
    return [image if isinstance(image, UnreadableImage) else next(rows) for image in decoded]


def run_batch(model: Model, pixels: NDArray[np.uint8], features: bool) -> list[Output]:
    """Run the network on pixels uint8[B, 3, S, S], with features if they are needed."""
    if not features:
        return [Output(row) for row in model.forward(pixels)]
    return [Output(*pair) for pair in zip(*model.forward_with_features(pixels), strict=True)]


def _share(passes: int) -> int | None:
    """Return the threads of each of so many concurrent forward passes; None leaves them unchanged."""
    return max(1, torch.get_num_threads() // passes) if passes > 1 else None


@contextmanager
def _pool(name: str, workers: int, share: int | None) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool whose threads compute with `share` threads each; on exit, pending work is cancelled."""
    begin = partial(torch.set_num_threads, share) if share is not None else None
    pool = ThreadPoolExecutor(workers, thread_name_prefix=name, initializer=begin)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _decode(source: Path | NDArray[Any] | UnreadableImage, rule: Preprocessing) -> Pixels:
    if isinstance(source, UnreadableImage):
        return source
    try:
        return decode(source, rule.image_size, pixels=rule.pixels)
    except UnreadableImage as error:
        return error
