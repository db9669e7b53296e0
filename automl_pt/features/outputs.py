"""What a model answers on a study's images: from stored features where its body is frozen, else from its network.

A model whose head alone was trained has the body whose features are stored on disk: the network need not run again on
images that it has seen. The head computes in the model's own number format, so that both ways agree within rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from automl_pt.config import Settings
from automl_pt.data.prepare import Data, Pixels
from automl_pt.dataset import Split
from automl_pt.features.network import Extractor, FrozenBody
from automl_pt.features.store import FeatureKey, FeatureStore
from automl_pt.model.load import BATCH_SIZE, Model
from automl_pt.training.evaluation import autocast

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Outputs:
    """Logits float32[N, C] of N images, and features float32[N, D]; D is 0 if the network has no linear head."""

    logits: NDArray[np.float32]
    features: NDArray[np.float32]


def outputs(
    model: Model, data: Data, split: Split, config: Settings, alive: Callable[[], object], *, features: bool = True
) -> Outputs:
    """Return the model's outputs on a split's images; `alive` is called meanwhile.

    Features that are missing are stored as those of a search are, unless the cache has no space. Without `features`
    those of the result may be absent.
    """
    pixels = data.pixels(split, model.info.preprocessing.image_size)
    rows = _rows(model, data, split, pixels, config, alive)
    if rows is not None:
        return _of_head(model, rows)
    logits, kept = [], []
    for start in range(0, len(pixels.labels), BATCH_SIZE):
        batch = np.asarray(pixels.images[start : start + BATCH_SIZE])
        one, inputs = model.forward_with_features(batch) if features else (model.forward(batch), np.empty((0, 0)))
        logits.append(one)
        kept.append(inputs)
        alive()
    return Outputs(np.concatenate(logits), np.concatenate(kept))


def _rows(
    model: Model, data: Data, split: Split, pixels: Pixels, config: Settings, alive: Callable[[], object]
) -> Tensor | None:
    """Return features float32[N, D]; None unless those of the validation images are stored of this very body."""
    body = _frozen_body(model)
    if body is None:
        return None
    rule = model.info.preprocessing
    key = FeatureKey(
        backbone=model.info.backbone,
        weights=body.digest(),
        layer=body.head,
        preprocessing=rule,
        precision=config.precision,
        device=model.device.type,
        dimensions=body.dimensions,
    )
    store = replace(FeatureStore.at(config.cache_dir), required=False)
    known = store.stored(key, data.digests("val", data.pixels("val", rule.image_size).names))
    if known is None or known.precision != model.precision:
        return None

    def make() -> Extractor:
        return Extractor(body, rule, model.device, model.precision)

    digests = data.digests(split, pixels.names)
    work = store.features(make, key, pixels.images, digests)
    while True:
        try:
            next(work)
        except StopIteration as end:
            return torch.from_numpy(end.value.of(digests))
        alive()


def _frozen_body(model: Model) -> FrozenBody | None:
    """Return the body of a model whose head alone was trained; None for another, and for several networks."""
    if model.info.config.get("freeze") != "backbone" or len(model.head_inputs.heads) != 1:
        return None
    (head,) = model.head_inputs.heads
    name = next((name for name, module in model.network.named_modules() if module is head), None)
    return None if name is None else FrozenBody(model.network, name)


def _of_head(model: Model, rows: Tensor) -> Outputs:
    (head,) = model.head_inputs.heads
    with torch.inference_mode(), autocast(model.device, model.precision):
        parts = (rows[start : start + BATCH_SIZE] for start in range(0, len(rows), BATCH_SIZE))
        logits = [head(part.to(model.device)).float().cpu() for part in parts]
    joined = model.head_inputs.joined([rows], len(rows))
    assert joined is not None
    return Outputs(torch.cat(logits).numpy(), joined.numpy())
