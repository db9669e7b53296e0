"""The subject of a real study: image classifiers, trained by `run`, judged on validation and test images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from automl_pt.backbone import Backbone
from automl_pt.build import build_model
from automl_pt.config import SearchConfig
from automl_pt.data.manifest import require_asked
from automl_pt.data.prepare import Progress, prepare, split_settings
from automl_pt.model.load import publish
from automl_pt.model.scoring import losses_of
from automl_pt.new_training import choose_image_size, choose_parameters
from automl_pt.plugins import Plugins, load_plugins
from automl_pt.study.after import Maker
from automl_pt.study.dimensions import dimensions
from automl_pt.study.engine.base import Step, TrialSpec
from automl_pt.study.engine.trial import epochs
from automl_pt.study.measured import Bench
from automl_pt.study.offered import StepMemory
from automl_pt.study.records import Comparison, TrialRecord
from automl_pt.study.subject import Material, Subject
from automl_pt.training.device import choose_device, choose_precision
from automl_pt.training.footprint import step_memory
from automl_pt.used_plugins import used_plugins


def prepare_material(
    config: SearchConfig, manifest: Path, plugins: Plugins | None, *, progress: Progress | None = None
) -> Material:
    """Freeze or reload the split, and decode its images once, before any worker asks for them.

    `progress(stage, done, total)` is called as that goes on, and may raise to end it.
    """
    plugins = plugins or load_plugins(config.plugins)
    data = prepare(config, plugins, manifest=manifest, progress=progress)
    if not manifest.with_name("study.json").exists():
        require_asked(data.manifest, split_settings(config), manifest)
    nets = [plugins.backbone(name, config.backbone_options) for name in dict.fromkeys(config.backbones)]
    extra = dimensions(nets, config.backbone_options)
    steps: list[StepMemory] = []
    for backbone in nets:
        name = backbone.name
        size = choose_image_size(config.trial(backbone=name, lr=1.0, batch_size=1, seed=0), data, backbone)
        steps.append(_prove(config, backbone, len(data.manifest.classes), size))
        for split in ("train", "val"):
            data.pixels(split, size)

    def make(spec: TrialSpec, should_stop: Callable[[], bool]) -> Iterator[Step]:
        return epochs(spec, should_stop, data, plugins)

    counts = data.manifest.counts()
    return Material(
        train_images=counts.get("train", 0),
        val_images=counts.get("val", 0),
        test_images=counts.get("test", 0),
        fingerprint=data.manifest.fingerprint(),
        make=make,
        plugins=used_plugins(plugins, config.backbones, config.dataset),
        dimensions=extra,
        steps=() if config.micro_batch_size is not None else tuple(steps),
        notes=data.notes,
        classes=len(data.manifest.classes),
    )


def _prove(config: SearchConfig, backbone: Backbone, classes: int, size: int) -> StepMemory:
    """Build the network once before any trial: weights that are absent, or a size it cannot take, fail here.

    Return what a training step of it takes.
    """
    weights = Path(config.weights) if config.weights else None
    model = build_model(backbone, classes, size, pretrained=config.pretrained, weights=weights, seed=config.seed)
    choose_parameters(model, backbone, config.trial(backbone=backbone.name, lr=1.0, batch_size=1, seed=0))
    half = choose_precision(config.precision, choose_device(config.device)) != "fp32"
    return StepMemory(*step_memory(model, size, half=half))


def compare(
    config: SearchConfig,
    best: TrialRecord,
    runner_up: TrialRecord,
    directory: Path,
    plugins: Plugins | None,
    tell: Callable[[str], None],
) -> Comparison | None:
    """Compare two trials' kept weights, image by image, on the validation split."""
    bench = Bench.of(config, directory, plugins, tell)
    scored = [bench.score(bench.load(directory / "trials" / str(record.number))) for record in (best, runner_up)]
    first, second = (losses_of(one.logits, one.labels) for one in scored)
    return paired(best.number, runner_up.number, first, second)


def paired(best: int, runner_up: int, first: NDArray[np.float64], second: NDArray[np.float64]) -> Comparison:
    """Say whether the mean of `second - first`, float64[N] losses of the same images, is more than their noise."""
    difference = second - first
    error = float(difference.std(ddof=1)) / math.sqrt(len(difference)) if len(difference) > 1 else math.inf
    mean = float(difference.mean())
    return Comparison(best, runner_up, mean, error, len(difference), abs(mean) < 2 * error)


def test(
    config: SearchConfig, model: Path, manifest: Path, plugins: Plugins | None, tell: Callable[[str], None]
) -> dict[str, float] | None:
    """Measure the finished model on the test split; None where there is none."""
    bench = Bench.of(config, manifest.parent, plugins, tell)
    return bench.test(bench.load(model)) if bench.has_test else None


def report(config: SearchConfig, directory: Path, plugins: Plugins | None) -> Path:
    """Write report.html into the folder of a study whose search has ended here."""
    from automl_pt.study.sections.write import write_report

    return write_report(config, directory, plugins)


def makers() -> dict[str, Maker]:
    """Return what makes more of ended trials than the best one's model."""
    from automl_pt.study.averaging import make_average
    from automl_pt.study.ensemble import make_ensemble
    from automl_pt.study.refit import make_refit

    return {"ensemble": make_ensemble, "average": make_average, "refit": make_refit}


IMAGES = Subject(
    prepare_material, "automl_pt.study.engine.trial:make_trial", publish, compare, test, report, makers, probes=True
)
