"""Compares the finished model with that of the study that it was started from, image by image."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from automl_pt.core.text import few, printable
from automl_pt.data.carried_split import unseen
from automl_pt.data.manifest import Manifest
from automl_pt.dataset import Split
from automl_pt.model.labelled import Scored
from automl_pt.model.load import Model
from automl_pt.model.paired import compare_models
from automl_pt.study.executor.base import Caller
from automl_pt.study.extras.evaluator import ModelEvaluator
from automl_pt.study.extras.extras import Ended


def compare_with_earlier(ended: Ended) -> Generator[str, None, dict[str, Any] | None]:
    """Compare the two models on the test images, without a test split on the validation images.

    Images that the earlier model was trained on are not counted, nor those of classes that it does not know.
    """
    earlier = Path(str(ended.config.warm_start))
    evaluator = ModelEvaluator.of(ended.config, ended.directory, ended.plugins, Caller(alive=ended.should_stop))
    split: Split = "test" if evaluator.has_test else "val"
    new, old = evaluator.load(ended.directory / "model"), evaluator.load(earlier / "model")
    first, second = evaluator.score(new, split), evaluator.score(old, split)
    unknown = sorted({*new.classes} - {*old.classes})
    fresh = unseen(evaluator.data.manifest, Manifest.load(earlier / "manifest.json"), first.names)
    known = [new.classes[label] not in unknown for label in first.labels]
    kept = np.array([own and fit for own, fit in zip(fresh, known, strict=True)], bool)
    found: dict[str, Any] = {"model": None, "study": earlier.name, "split": split, "images": int(kept.sum())}
    found |= {"trained_on": fresh.count(False), "new_classes": unknown}
    if not kept.any():
        yield f"not compared with {printable(earlier.name)}: no {split} image is new to its model"
        return {**found, "accuracy": None}
    if unknown:
        yield f"the model of {printable(earlier.name)} does not know {few(unknown)}: compared without them"
    first, second = _of(first, kept), _as_known_by(old, new, _of(second, kept))
    shares = [float((one.logits.argmax(1) == one.labels).mean()) for one in (first, second)]
    paired = compare_models(first, second).to_dict()
    return {**found, **paired, "accuracy": shares[0], "earlier_accuracy": shares[1]}


def _of(scored: Scored, kept: np.ndarray[Any, np.dtype[np.bool_]]) -> Scored:
    names = tuple(name for name, own in zip(scored.names, kept, strict=True) if own)
    return replace(scored, names=names, logits=scored.logits[kept], labels=scored.labels[kept])


def _as_known_by(old: Model, new: Model, scored: Scored) -> Scored:
    """Return the images with labels that index the earlier model's classes; -1 for one that it lacks."""
    index = {title: place for place, title in enumerate(old.classes)}
    labels = [index.get(new.classes[label], -1) for label in scored.labels]
    return replace(scored, labels=np.array(labels, np.int64))
