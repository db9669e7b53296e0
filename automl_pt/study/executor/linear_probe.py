"""The linear probe as an executor's job: compute features, fit the head, write a complete model.

Its folder is a run directory, like a trial's, with `probe.json` in addition, which holds its results and cost.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from automl_pt.backbone import Backbone
from automl_pt.backbones.build import build_model
from automl_pt.config import TrainConfig
from automl_pt.core.files import atomic_write, make_folder, to_json, write_json
from automl_pt.core.locks import locked
from automl_pt.data.prepare import Data
from automl_pt.features.linear_probe import FrozenSplits, fit_probe, frozen_splits, put_head
from automl_pt.features.logistic import LinearHead
from automl_pt.features.network import frozen_body
from automl_pt.images.preprocessing import Preprocessing
from automl_pt.model.directory import save_model
from automl_pt.model.load import given_weights
from automl_pt.plugins.manager import Plugins
from automl_pt.plugins.metrics import Metric
from automl_pt.runs.directory import finish, new_record
from automl_pt.runs.run import model_info
from automl_pt.runs.setup import choose_preprocessing, set_up
from automl_pt.study.executor.base import Step, TrialSpec
from automl_pt.study.executor.messages import PassProgress
from automl_pt.training.device import peak_memory
from automl_pt.training.evaluation import autocast, measure, predictions
from automl_pt.training.result import FIELDS, EpochResult

#: results and cost of the probe, in its folder
FILE = "probe.json"
#: latency is the median of this many forward passes of one image
TIMED = 7


@dataclass(frozen=True)
class Cost:
    """Wall seconds, and seconds of this process's CPUs, since a job began."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Cost:
        """Return the current clocks."""
        return cls(time.perf_counter(), time.process_time())

    def since(self, start: Cost) -> Cost:
        """Return the difference from `start`."""
        return Cost(self.wall - start.wall, self.cpu - start.cpu)


def linear_probe(spec: TrialSpec, should_stop: Callable[[], bool], data: Data, plugins: Plugins) -> Iterator[Step]:
    """Yield the progress of the features, then the probe as one epoch, after its model is on disk.

    If stopped it yields no epoch; the features computed so far stay on disk. Raises PluginError for a network
    without a linear head.
    """
    config, started = spec.config, Cost.now()
    make_folder(spec.output)
    with locked(spec.output / ".lock"):
        backbone = plugins.backbone(config.backbone, config.backbone_options)
        device, _ = set_up(config)
        preprocessing = choose_preprocessing(config, data, backbone)
        network = _network(config, backbone, len(data.manifest.classes), preprocessing)
        body = frozen_body(network, backbone, preprocessing.image_size, preprocessing.pixels.channels)
        work = frozen_splits(config, data, body, preprocessing, mirrored=config.features == "mirrored")
        while True:
            try:
                yield PassProgress(*next(work))
            except StopIteration as end:
                splits: FrozenSplits = end.value
                break
            if should_stop():
                work.close()
                return
        head = fit_probe(splits, config, data)
        put_head(body, head)
        spent = Cost.now().since(started)
        record = new_record(config, data, plugins, device, splits.precision)
        metrics = _further(head, splits, plugins)
        result = _result(head, splits, spent, device, metrics)
        info = model_info(record, data, preprocessing, backbone, device)
        info = replace(info, metrics=_metrics(head, metrics), history=[result.to_dict()])
        save_model(spec.output, network.state_dict(), info)
        found = {
            **_found(head, splits, spent),
            "metrics": metrics,
            "cost": _cost(head, metrics, plugins.objective(config.objective)),
            "backbone": config.backbone,
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "milliseconds": _latency(network, preprocessing, device, splits),
        }
        write_json(spec.output / FILE, found)
        atomic_write(spec.output / "history.jsonl", to_json(result.to_dict()) + "\n")
        write_json(spec.output / "run.json", {**record, "linear_probe": True})
        finish(spec.output, "completed")
    yield result


def _network(config: TrainConfig, backbone: Backbone, classes: int, rule: Preprocessing) -> nn.Module:
    return build_model(
        backbone,
        classes,
        rule.image_size,
        pretrained=bool(config.pretrained),
        weights=given_weights(config.weights) if config.weights else None,
        seed=config.seed,
        channels=rule.pixels.channels,
    )


def _further(head: LinearHead, splits: FrozenSplits, plugins: Plugins) -> dict[str, float]:
    """Return the metrics of the head besides its loss and accuracy; one that fails is not recorded."""
    features, labels = splits.val
    found = predictions(F.linear(features, head.weight, head.bias), labels)
    return measure([one for one in plugins.metrics().values() if one.name not in FIELDS], found)[0]


def _cost(head: LinearHead, further: dict[str, float], objective: Metric) -> float | None:
    """Return what the objective makes of the head, as of a trial; None: it is the loss."""
    if objective.name == "loss":
        return None
    own = {"accuracy": head.val_accuracy, "top5": head.val_top5, **further}
    value = own.get(objective.name)
    return None if value is None or not math.isfinite(value) else objective.cost(value)


def _metrics(head: LinearHead, further: dict[str, float]) -> dict[str, Any]:
    """Return what the model's record says of the probe."""
    return {
        "epoch": 1,
        "val_loss": head.val_loss,
        "val_accuracy": head.val_accuracy,
        **{f"val_{name}": value for name, value in further.items()},
        "head": f"logistic regression on frozen features, C {head.c:.3g}: no setting of the optimiser was used",
    }


def probe_config(config: TrainConfig) -> TrainConfig:
    """Return the settings of a study's probe: those that all trials share, with a new head."""
    return config.model_copy(update={"head": "new", "freeze": "backbone", "freeze_groups": 0, "layer_decay": 1.0})


def _result(
    head: LinearHead, splits: FrozenSplits, spent: Cost, device: torch.device, metrics: dict[str, float]
) -> EpochResult:
    return EpochResult(
        epoch=1,
        train_loss=head.train_loss,
        val_loss=head.val_loss,
        val_accuracy=head.val_accuracy,
        val_top5=head.val_top5,
        lr=0.0,
        images_per_second=splits.computed / spent.wall,
        data_wait=0.0,
        peak_memory=peak_memory(device),
        seconds=spent.wall,
        is_best=True,
        reason="completed",
        notes=splits.notes,
        metrics=metrics,
    )


def _found(head: LinearHead, splits: FrozenSplits, spent: Cost) -> dict[str, Any]:
    return {
        "c": head.c,
        "val_loss": head.val_loss,
        "val_accuracy": head.val_accuracy,
        "train_loss": head.train_loss,
        "tried": [list(one) for one in head.tried],
        "computed": splits.computed,
        "dimensions": splits.key.dimensions,
        "seconds": spent.wall,
        "cpu_seconds": spent.cpu,
        "notes": list(splits.notes),
    }


def _latency(network: nn.Module, rule: Preprocessing, device: torch.device, splits: FrozenSplits) -> float:
    """Return the network's milliseconds for a single image."""
    image = torch.zeros(1, rule.pixels.channels, rule.image_size, rule.image_size, device=device)
    seconds = []
    with torch.inference_mode(), autocast(device, splits.precision):
        for _ in range(TIMED):
            started = time.perf_counter()
            network(image).cpu()
            seconds.append(time.perf_counter() - started)
    return 1000 * median(seconds)
