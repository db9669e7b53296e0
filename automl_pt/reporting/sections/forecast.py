"""The expected gain of more images, from linear probes of parts of the training images, with stored features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from automl_pt.backbones.build import build_model
from automl_pt.config import TrainConfig
from automl_pt.core.errors import AutomlError
from automl_pt.data.prepare import Data
from automl_pt.features.linear_probe import FrozenSplits, fit_probe, frozen_splits
from automl_pt.features.logistic import LinearHead, fit_head
from automl_pt.features.network import frozen_body
from automl_pt.model.load import given_weights
from automl_pt.plugins.manager import Plugins
from automl_pt.reporting.sections import Section, missing
from automl_pt.reporting.study import StudyReport
from automl_pt.runs.directory import recorded_config
from automl_pt.runs.setup import choose_preprocessing
from automl_pt.study.executor.base import NO_CALLER, Caller
from automl_pt.study.store.study_files import read_object

#: shares of the training images that a head is fitted to
PARTS = (0.125, 0.25, 0.5, 1.0)
#: with more images the fits take too long for a page
MAX_IMAGES = 6000
#: parts with fewer images a class are skipped
LEAST = 2
NONE = "There is no linear probe, whose features this needs; a search from pretrained weights begins with one."


def forecast_section(report: StudyReport, data: Data, plugins: Plugins, *, caller: Caller = NO_CALLER) -> Section:
    """Fit heads to growing parts of the training images and extrapolate the error to twice as many."""
    found = min(
        (probe for probe in report.probes if probe.failure is None and probe.value is not None),
        key=lambda probe: probe.value or 0.0,
        default=None,
    )
    if found is None:
        return missing(NONE)
    record = Path(report.directory) / "trials" / str(found.number) / "run.json"
    config = recorded_config(TrainConfig, read_object(record).get("config", {}), source=record)
    try:
        splits = _features(config, data, plugins)
    except AutomlError as error:
        return missing(f"The features of the linear probe cannot be read. {error.in_a_line()}")
    if splits is None:
        return missing("The features of the linear probe are no longer in the cache.")
    if len(splits.train[1]) > MAX_IMAGES:
        return missing(f"With {len(splits.train[1]):,} training images the forecast would take too long.")
    # the parts are fitted without class weights
    whole = fit_probe(splits, config, data) if config.class_weights == "none" else None
    points = points_of(splits.train, splits.val, len(data.manifest.classes), caller, whole)
    if len(points) < 3:
        return missing("There are too few training images to fit heads to parts of them.")
    return described(points, found.backbone)


def _features(config: TrainConfig, data: Data, plugins: Plugins) -> FrozenSplits | None:
    """Return the probe's features from disk; None where more than a block of them is missing, which takes long."""
    backbone = plugins.backbone(config.backbone, config.backbone_options)
    preprocessing = choose_preprocessing(config, data, backbone)
    weights = given_weights(config.weights) if config.weights else None
    network = build_model(
        backbone,
        len(data.manifest.classes),
        preprocessing.image_size,
        pretrained=bool(config.pretrained),
        weights=weights,
        seed=config.seed,
        channels=preprocessing.pixels.channels,
    )
    body = frozen_body(network, backbone, preprocessing.image_size, preprocessing.pixels.channels)
    work = frozen_splits(config, data, body, preprocessing)
    try:
        next(work)
    except StopIteration as end:
        found: FrozenSplits = end.value
        return found
    work.close()
    return None


def points_of(
    train: tuple[torch.Tensor, torch.Tensor],
    val: tuple[torch.Tensor, torch.Tensor],
    classes: int,
    caller: Caller = NO_CALLER,
    whole: LinearHead | None = None,
) -> list[dict[str, Any]]:
    """Return the accuracy of heads fitted to parts of the images; each part lies within the next, with all classes.

    `train` and `val` are features float32[N, D] with labels int64[N]. A part with under `LEAST` images a class is
    skipped. `whole` is the head fitted to all of them, if there is one.
    """
    features, labels = train
    order = _stratified(labels.numpy())
    points = []
    for part in PARTS:
        rows = torch.from_numpy(order[: round(part * len(order))])
        caller.alive()
        if len(rows) < LEAST * classes:
            continue
        known = whole if len(rows) == len(order) else None
        head = known or fit_head((features[rows], labels[rows]), val, classes)
        points.append({"images": len(rows), "accuracy": head.val_accuracy})
    return points


def _stratified(labels: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return an order of the images in which every prefix has all classes in their proportions."""
    rng = np.random.default_rng(0)
    places = np.empty(len(labels))
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        places[rows] = (np.arange(len(rows)) + rng.uniform()) / len(rows)
    return np.argsort(places, kind="stable")


def described(points: list[dict[str, Any]], backbone: str) -> Section:
    """Return the points with the accuracy expected of twice as many images, as a figure and as text."""
    images, now = points[-1]["images"], points[-1]["accuracy"]
    slope = _slope(points)
    twice = None if slope is None else 1 - (1 - now) * 2.0**slope
    if twice is None or twice - now < 0.005:
        gain = "More images alone would hardly help this linear head: its accuracy has stopped rising with them."
    else:
        gain = (
            f"With {2 * images:,} training images instead of {images:,} it would reach about {100 * twice:.0f} %, now "
            f"{100 * now:.1f} %, if its error keeps falling as it did."
        )
    note = (
        f"A linear head on the features of {backbone}, fitted to parts of the training images. {gain} A fine-tuned "
        "network is usually better than the linear head, and gains in a similar way."
    )
    return {"points": points, "twice": twice, "now": now, "images": images, "note": note}


def _slope(points: list[dict[str, Any]]) -> float | None:
    """Return the exponent b of error = a * images ** b by a fit of the logarithms; None if the error does not fall."""
    errors = np.array([1 - point["accuracy"] for point in points])
    if (errors <= 0).any():
        return None
    slope = float(np.polyfit(np.log([point["images"] for point in points]), np.log(errors), 1)[0])
    return slope if slope < 0 else None
