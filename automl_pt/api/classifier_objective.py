"""The objective of a real study: image classifiers, trained by `run` and evaluated on validation and test images."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl_pt.backbone import Backbone
from automl_pt.config import SearchConfig, TrainConfig
from automl_pt.core.errors import PluginError, StudyError
from automl_pt.data.folds import folds_of
from automl_pt.data.manifest import Manifest, require_asked
from automl_pt.data.policy import require_policy
from automl_pt.data.prepare import Data, OnProgress, prepare, split_settings
from automl_pt.model.labelled import Scored
from automl_pt.model.load import publish
from automl_pt.model.scoring import losses_of
from automl_pt.plugins.manager import Plugins, load_plugins
from automl_pt.plugins.provenance import used_plugins
from automl_pt.reporting.study import find_study, is_elsewhere, read_study
from automl_pt.runs.published import default_lr
from automl_pt.runs.setup import choose_image_size, require_files
from automl_pt.runs.start import Start, choose_start, fetch_weights, require_start_for_average, settled
from automl_pt.study.executor.base import Call, Caller, Engine, Step, TrialSpec
from automl_pt.study.executor.calls import returned
from automl_pt.study.executor.prove_backbone import prove_backbone
from automl_pt.study.executor.trial_run import epochs
from automl_pt.study.extras.evaluator import ModelEvaluator
from automl_pt.study.extras.extras import MakeExtra
from automl_pt.study.model_store import ranked
from automl_pt.study.objective import Objective, Proof, SearchData
from automl_pt.study.records import ModelComparison, TrialRecord
from automl_pt.study.space.batch_sizes import StepMemory
from automl_pt.study.space.dimensions import dimensions
from automl_pt.training.class_weights import require_classes
from automl_pt.training.device import choose_device
from automl_pt.training.evaluation import require_value


def prepare_search_data(
    config: SearchConfig, manifest: Path, plugins: Plugins | None, *, progress: OnProgress | None = None
) -> SearchData:
    """Freeze or reload the split; `prove` also decodes the images once, before any worker needs them.

    `progress(stage, done, total)` is called meanwhile, and may raise to stop.
    """
    plugins = plugins or load_plugins(config.plugins)
    nets = [plugins.backbone(name, config.backbone_options) for name in dict.fromkeys(config.backbones)]
    require_policy(config.tried("augmentation"), config.transforms, plugins)
    require_files(config)
    plugins.objective(config.objective)
    choose_device(config.device)  # all that names can be wrong about, before anything is read or decoded
    earlier = None
    if config.warm_start is not None and not manifest.exists():
        earlier = Manifest.load(find_study(config.warm_start) / "manifest.json")
    data = prepare(config, plugins, manifest=manifest, progress=progress, earlier=earlier)
    if not manifest.with_name("study.json").exists():
        require_asked(data.manifest, split_settings(config), manifest)
    if config.folds is not None:
        folds_of(data, config.folds)  # which raises an error, now rather than after the trials
    require_classes(config.class_weights, data.manifest.classes)
    require_value(plugins.objective(config.objective), len(data.manifest.classes))
    extra = dimensions(nets, config.backbone_options, [entry.name for entry in config.entries])

    def prove(engine: Engine, unwanted: Callable[[], bool]) -> Proof:
        return _prove(config, nets, data, plugins, engine, unwanted)

    def make(spec: TrialSpec, should_stop: Callable[[], bool]) -> Iterator[Step]:
        return epochs(spec, should_stop, data, plugins)

    counts = data.manifest.counts()
    return SearchData(
        train_images=counts.get("train", 0),
        val_images=counts.get("val", 0),
        test_images=counts.get("test", 0),
        fingerprint=data.manifest.fingerprint(),
        make=make,
        plugins=used_plugins(plugins, config.named_values()),
        dimensions=extra,
        default_lr=default_lr(config, plugins),
        prove=prove,
        notes=data.notes,
        classes=len(data.manifest.classes),
        image_sizes=tuple(dict.fromkeys(_size(config, net, data) for net in nets)),
        early=partial(best_settings, config),
    )


def best_settings(config: SearchConfig) -> dict[str, Any] | None:
    """Return the settings of the best searched trial of the study that this one starts from; None if none is complete.

    A rival is none of these: its settings are not searched, and a study has rivals of its own.
    """
    if config.warm_start is None:
        return None
    directory = find_study(config.warm_start)
    report = read_study(directory, storage=config.storage if is_elsewhere(directory) else None)
    best = next((one for one in ranked(report.trials) if one.state == "COMPLETE" and one.rival is None), None)
    return None if best is None else {"backbone": next(iter(report.backbones), None), **best.params}


def _size(config: SearchConfig, backbone: Backbone, data: Data) -> int:
    return choose_image_size(config.trial(backbone=backbone.name, lr=1.0, batch_size=1, seed=0), data, backbone)


def starts(config: SearchConfig, plugins: Plugins | None) -> Iterator[Start]:
    """Yield what each backbone starts from, then fetch its pretrained weights; nothing is created before that."""
    plugins = plugins or load_plugins(config.plugins)
    names = tuple(dict.fromkeys(config.backbones))
    found = [choose_start(config, plugins.backbone(name, config.backbone_options), plugins) for name in names]
    require_start_for_average(found, config)
    yield from found
    fetch_weights(found, config, plugins, config.backbone_options)


def in_time(config: SearchConfig, since: float, progress: OnProgress | None = None) -> Objective:
    """Return image classifiers; reading their images raises StudyError when the search's time is over."""

    def show(what: str, done: int, total: int) -> None:
        if progress is not None:
            progress(what, done, total)
        if config.timeout is not None and time.monotonic() - since > config.timeout:
            raise StudyError(
                "no model: the time limit was reached while images were still being read",
                given=f"--timeout {config.timeout:g}, {what}: {done} of {total}",
                remedy="search again with a larger --timeout, or without one",
            )

    return replace(IMAGES, prepare=partial(prepare_search_data, progress=show))


def _prove(
    config: SearchConfig,
    nets: Sequence[Backbone],
    data: Data,
    plugins: Plugins,
    engine: Engine,
    unwanted: Callable[[], bool],
) -> Proof:
    """Try each network once where trials run, then decode the images, so that missing weights or a wrong size fail now.

    A plugin's fault ends the search if no other backbone remains; otherwise its trials will fail, and a note says so.
    """
    steps, faults, classes = list[StepMemory](), list[PluginError](), len(data.manifest.classes)
    notes: list[str] = []
    for backbone in nets:
        trial = config.trial(backbone=backbone.name, lr=1.0, batch_size=1, seed=0)
        trial = settled(trial, backbone, data.hints)
        size = choose_image_size(trial, data, backbone)
        try:
            found = returned(
                engine.call(_proving(trial, plugins, classes, size, data.manifest.pixels.channels), unwanted)
            )
        except PluginError as error:
            faults.append(error)
            continue
        if found is not None:
            notes += found["notes"]
            if found["fixed"]:
                steps.append(StepMemory(found["fixed"], found["per_image"]))
        for split in ("train", "val"):
            data.pixels(split, size)
    if faults and len(faults) == len(nets):
        raise faults[0]
    notes += [f"trials of this backbone will fail: {fault.in_a_line()}" for fault in faults]
    return Proof(() if config.micro_batch_size is not None else tuple(steps), tuple(notes))


def _proving(trial: TrainConfig, plugins: Plugins, classes: int, size: int, channels: int) -> Call:
    def here(caller: Caller) -> dict[str, float]:
        return prove_backbone(trial, plugins, classes, size, channels)

    arguments = {"config": trial.model_dump(mode="json"), "classes": classes, "size": size, "channels": channels}
    return Call("automl_pt.study.executor.prove_backbone:prove", arguments, here, f"the network of {trial.backbone}")


def compare(
    config: SearchConfig,
    best: TrialRecord,
    runner_up: TrialRecord,
    directory: Path,
    plugins: Plugins | None,
    caller: Caller,
) -> ModelComparison | None:
    """Compare the saved weights of two trials, image by image, on the validation split."""
    evaluator = ModelEvaluator.of(config, directory, plugins, caller)
    scored = [
        evaluator.score(evaluator.load(directory / "trials" / str(record.number))) for record in (best, runner_up)
    ]
    first, second = (losses_of(one.logits, one.labels) for one in scored)
    found = asdict(paired(best.number, runner_up.number, first, second))
    return ModelComparison.from_dict({**found, **accuracies(*scored)})


def accuracies(best: Scored, runner_up: Scored) -> dict[str, float]:
    """Return a comparison's accuracies, and, where they order the two otherwise than the losses, its scaled losses."""
    found = {
        name: float((one.logits.argmax(axis=1) == one.labels).mean())
        for name, one in (("best_accuracy", best), ("runner_up_accuracy", runner_up))
    }
    if found["runner_up_accuracy"] > found["best_accuracy"]:
        from automl_pt.model.temperature import fit  # imports SciPy

        for name, one in (("best_scaled_loss", best), ("runner_up_scaled_loss", runner_up)):
            scaled = one.logits / np.float32(fit(one.logits, one.labels))
            found[name] = float(losses_of(scaled, one.labels).mean())
    return found


def paired(best: int, runner_up: int, first: NDArray[np.float64], second: NDArray[np.float64]) -> ModelComparison:
    """Return whether the mean of `second - first`, float64[N] losses of the same images, exceeds its noise."""
    difference = second - first
    error = float(difference.std(ddof=1)) / math.sqrt(len(difference)) if len(difference) > 1 else math.inf
    mean = float(difference.mean())
    return ModelComparison(best, runner_up, mean, error, len(difference), abs(mean) < 2 * error)


def test(
    config: SearchConfig, model: Path, manifest: Path, plugins: Plugins | None, caller: Caller
) -> dict[str, float] | None:
    """Evaluate the finished model on the test split, None if there is none; keep its rule for unsure answers."""
    evaluator = ModelEvaluator.of(config, manifest.parent, plugins, caller)
    return evaluator.keep_rule(evaluator.load(model), model)


def report(config: SearchConfig, directory: Path, plugins: Plugins | None, caller: Caller) -> Path:
    """Write report.html into the folder of a study whose search has ended in this process."""
    from automl_pt.reporting.sections.write import write_report

    return write_report(config, directory, plugins, caller)


def makers() -> dict[str, MakeExtra]:
    """Return the functions that make the extras."""
    from automl_pt.study.extras.against_earlier import compare_with_earlier
    from automl_pt.study.extras.ensemble import make_ensemble
    from automl_pt.study.extras.folds import make_folds
    from automl_pt.study.extras.refit import make_refit
    from automl_pt.study.extras.weight_average import make_average

    combined = {"ensemble": make_ensemble, "average": make_average}
    return {"earlier": compare_with_earlier, **combined, "refit": make_refit, "folds": make_folds}


IMAGES = Objective(
    f"{__name__}:IMAGES",
    prepare_search_data,
    "automl_pt.study.executor.trial_run:make_trial",
    publish,
    compare,
    test,
    report,
    makers,
    starts,
    probes=True,
)
