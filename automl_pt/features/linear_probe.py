"""The linear probe: a head fitted to the features of a frozen network, as a first model and a start for training."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from automl_pt.backbone import Backbone
from automl_pt.config import TrainConfig
from automl_pt.data.prepare import FIT, Data
from automl_pt.dataset import Split
from automl_pt.features.logistic import LinearHead, fit_head
from automl_pt.features.network import Extractor, FrozenBody, frozen_body
from automl_pt.features.store import FeatureKey, FeatureStore, Pass, T
from automl_pt.images.preprocessing import Preprocessing
from automl_pt.training.class_weights import class_weights
from automl_pt.training.device import NumberFormat, choose_device

#: heads fitted by this process, cached because all trials of a study start from the same
_FITTED: dict[tuple[str, str, str], LinearHead] = {}


@dataclass(frozen=True)
class FrozenSplits:
    """Features float32[N, D] with labels int64[N], of training and validation; `key` identifies what they depend on."""

    train: tuple[Tensor, Tensor]
    val: tuple[Tensor, Tensor]
    key: FeatureKey
    #: number format in which the network computed them
    precision: NumberFormat
    #: number of images that went through the network now
    computed: int
    notes: tuple[str, ...] = ()


def frozen_splits(
    config: TrainConfig,
    data: Data,
    body: FrozenBody,
    preprocessing: Preprocessing,
    *,
    mirrored: bool = False,
) -> Pass[FrozenSplits]:
    """Return the features of training and validation images, from disk if they are stored.

    With `mirrored` those of the training images' mirror images follow. Yields (finished images, all images)
    of each split.
    """
    device, store = choose_device(config.device), FeatureStore.at(config.cache_dir)
    key = FeatureKey(
        backbone=config.backbone,
        weights=body.digest(),
        layer=body.head,
        preprocessing=preprocessing,
        precision=config.precision,
        device=device.type,
        dimensions=body.dimensions,
    )
    used: list[Extractor] = []

    def make() -> Extractor:
        used[:] = used or [Extractor(body, preprocessing, device, config.precision)]
        return used[0]

    formats: list[str] = []

    def of(split: Split, key: FeatureKey) -> Pass[Tensor]:
        pixels = data.pixels(split, preprocessing.image_size)
        digests = data.digests(split, pixels.names)
        found = yield from store.features(make, key, pixels.images, digests)
        formats.append(found.precision)
        return torch.from_numpy(found.of(digests))

    train, val = (yield from of("train", key)), (yield from of("val", key))
    turned = [(yield from of("train", replace(key, mirrored=True)))] if mirrored else []
    labels = {split: torch.from_numpy(data.pixels(split, preprocessing.image_size).labels) for split in FIT}
    return FrozenSplits(
        train=(torch.cat([train, *turned]), labels["train"].repeat(1 + len(turned))),
        val=(val, labels["val"]),
        key=key,
        precision=formats[-1],  # type: ignore[arg-type]  # as the extractor wrote it
        computed=store.computed,
        notes=tuple(store.notes),
    )


def fit_probe(splits: FrozenSplits, config: TrainConfig, data: Data) -> LinearHead:
    """Fit the head to training features, its regularisation chosen on validation; the result is deterministic.

    Classes are weighted by the settings. The fit runs on the CPU, where the features are.
    """
    setting = f"{config.class_weights} {len(splits.train[1])} {data.probe_c}"
    known = (splits.key.file, data.manifest.fingerprint(), setting)
    if known not in _FITTED:
        classes = len(data.manifest.classes)
        weights = class_weights(config.class_weights, splits.train[1], data.manifest.classes)
        _FITTED[known] = fit_head(splits.train, splits.val, classes, weights, data.probe_c)
    return _FITTED[known]


def put_head(body: FrozenBody, head: LinearHead) -> None:
    """Set the fitted head as the network's."""
    with torch.no_grad():
        body.linear.weight.copy_(head.weight)
        if body.linear.bias is not None:
            body.linear.bias.copy_(head.bias)


def start_from_probe(
    network: nn.Module, backbone: Backbone, config: TrainConfig, data: Data, size: Preprocessing
) -> None:
    """Give a new network the head of the linear probe on its own features, which are stored on disk."""
    trains = network.training
    body = frozen_body(network, backbone, size.image_size, size.pixels.channels)
    splits = finished(frozen_splits(config, data, body, size))
    put_head(body, fit_probe(splits, config, data))
    network.train(trains)


def finished(work: Pass[T]) -> T:
    """Run a pass to its end, and return its result."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            found: T = end.value
            return found
