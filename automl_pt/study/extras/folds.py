"""Cross-validation of the winner's settings: one model for each fold, evaluated on the images it has not seen.

Each fold trains as many epochs as the winner's kept weights had, so that no image of the fold chooses an epoch. The
models of the folds together are one more model, which averages their probabilities.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from automl_pt.config import TrainConfig
from automl_pt.core.errors import AutomlError, StudyError
from automl_pt.core.files import read_json, write_json
from automl_pt.core.text import counted
from automl_pt.data.folds import fold_data
from automl_pt.data.prepare import Data
from automl_pt.model.directory import read_info, save_model
from automl_pt.model.ensemble import join_infos, join_states
from automl_pt.model.intervals import over_folds
from automl_pt.runs.directory import history
from automl_pt.runs.run import execute
from automl_pt.study.executor.base import Caller, TrialSpec
from automl_pt.study.executor.linear_probe import FILE, linear_probe
from automl_pt.study.extras.evaluator import ModelEvaluator, figures
from automl_pt.study.extras.extras import Ended
from automl_pt.study.extras.refit import joined, settings
from automl_pt.study.model_store import discard

if TYPE_CHECKING:
    from automl_pt.training.result import EpochResult

#: the result of one fold, in its run directory
RESULT = "fold.json"
#: how the interval is computed, for the user
METHOD = "corrected t interval (Nadeau and Bengio), because the folds are not independent: they share training images"


def make_folds(ended: Ended) -> Generator[str, None, dict[str, Any] | None]:
    """Train and evaluate the fold `ended.part`; without one, join all folds. None if it was stopped."""
    evaluator = ModelEvaluator.of(ended.config, ended.directory, ended.plugins, Caller(alive=ended.should_stop))
    if ended.part is None:
        return (yield from _join(ended, evaluator))
    return (yield from _train(ended, evaluator, ended.part))


def folder_of(ended: Ended, number: int) -> Path:
    """Return the run directory of a fold."""
    best = ended.winner
    title = f"trial-{best.number}" if best.number >= 0 else f"probe{best.number}"
    return ended.directory / "folds" / f"{title}-epochs-{best.epochs}-of-{ended.config.folds}" / str(number)


def failed(ended: Ended, number: int, error: AutomlError) -> None:
    """Record why a fold has no model."""
    write_json(folder_of(ended, number) / RESULT, {"fold": number, "failed": error.in_a_line()})


def _train(ended: Ended, evaluator: ModelEvaluator, number: int) -> Generator[str, None, dict[str, Any] | None]:
    output, count = folder_of(ended, number), ended.config.folds or 0
    found = _result(output)
    if found is not None and "failed" not in found:
        return found
    info, _ = read_info(ended.output(ended.winner.number))
    data = fold_data(evaluator.data, count, number, probe_c=_probe_c(ended))
    config = settings(info, ended).model_copy(update={"keep": "last", "patience": info.config.get("epochs", 1)})
    epochs = int(info.metrics["epoch"])
    counts = data.manifest.counts()
    yield f"fold {number} of {count}: {counts['train']} images to train on, {counts['val']} held out"
    if ended.winner.number < 0:
        spec = TrialSpec(ended.winner.number, config, output, 1, ended.directory / "manifest.json")
        for _ in linear_probe(spec, ended.should_stop, data, evaluator.plugins):
            if ended.should_stop():
                return None
        finished = (output / "model.json").exists()
    else:
        finished = _run(config, output, data, evaluator, epochs, ended)
    if not finished:
        return None
    return _evaluate(output, replace(evaluator, data=data), number)


def _run(config: TrainConfig, output: Path, data: Data, evaluator: ModelEvaluator, epochs: int, ended: Ended) -> bool:
    """Train the fold's remaining epochs; return False if it was stopped. Raises StudyError if it diverged."""

    def after_step(done: int, batches: int) -> bool:
        # a run killed between an epoch's checkpoint and its history line may have all epochs already
        return ended.should_stop() or (done == 1 and len(history(output)) >= epochs)

    past = history(output)
    if len(past) < epochs and not (past and past[-1].reason is not None):
        results = execute(config, output, data=data, plugins=evaluator.plugins, after_step=after_step)
        with closing(cast("Generator[EpochResult]", results)) as epochs_done:  # leaving them saves the model
            for result in epochs_done:
                evaluator.caller.alive()
                if result.epoch >= epochs and config.freeze != "backbone":
                    break
    done = history(output)
    if done and done[-1].reason == "diverged":
        raise StudyError(
            f"the training diverged in epoch {len(done)}",
            given=str(output),
            remedy="the other folds count; lower learning rates diverge more rarely",
        )
    return len(done) >= epochs


def _evaluate(output: Path, evaluator: ModelEvaluator, number: int) -> dict[str, Any]:
    """Evaluate the fold's model on its held-out images, and write the result, which says that the fold is done."""
    scored = evaluator.score(evaluator.load(output))
    loss, accuracy = figures(scored)
    counts = evaluator.data.manifest.counts()
    found = {
        "fold": number,
        "train_images": counts["train"],
        "images": len(scored.labels),
        "accuracy": accuracy,
        "loss": loss,
    }
    write_json(output / RESULT, found)
    return found


def _join(ended: Ended, evaluator: ModelEvaluator) -> Generator[str, None, dict[str, Any] | None]:
    """Return the figures of all folds, and write `model-folds` of those that have a model."""
    count = ended.config.folds or 0
    results = {number: _result(folder_of(ended, number)) for number in range(1, count + 1)}
    missing = {number: "it has not ended" for number, found in results.items() if found is None}
    missing |= {number: found["failed"] for number, found in results.items() if found and "failed" in found}
    done = [found for number, found in results.items() if found is not None and number not in missing]
    found = {"trial": ended.winner.number, "folds": done, "failed": {str(n): why for n, why in missing.items()}}
    found |= {"count": count, "method": METHOD, "grouped": evaluator.data.inventory.images.groups is not None}
    if len(done) < 2:
        yield f"folds: {counted(len(done), 'fold')} of {count} ended, too few for an interval or an ensemble"
        return {**found, "model": None, "accuracy": None, "interval": None, "loss": None, "test": None}
    share = sum(one["images"] / one["train_images"] for one in done) / len(done)
    accuracy, interval = over_folds([one["accuracy"] for one in done], share)
    loss = sum(one["loss"] for one in done) / len(done)
    found |= {"accuracy": accuracy, "interval": list(interval), "loss": loss}
    numbers = [int(one["fold"]) for one in done]
    models = [evaluator.load(folder_of(ended, number)) for number in numbers]
    info = join_infos([model.info for model in models], [f"fold {number} of {count}" for number in numbers])
    target = ended.directory / "model-folds"
    state = join_states([model.network.state_dict() for model in models])
    metrics = {"cross_validated_accuracy": accuracy, "folds": len(done), "validation": "none: every image trained some"}
    save_model(target, state, replace(info, metrics=metrics))
    # beside the model, so that evaluating it on these images reports that it was trained on them
    joined(evaluator.data).manifest.save(target / "manifest.json")
    model = evaluator.load(target)
    test = yield from evaluator.tested(model, "folds")
    if not missing:
        for number in numbers:
            discard(folder_of(ended, number), weights=True)
    return {**found, "model": str(target), "times_slower": len(done), "test": test}


def _result(output: Path) -> dict[str, Any] | None:
    try:
        found = read_json(output / RESULT)
    except (OSError, ValueError):  # it was not written to its end
        return None
    return found if isinstance(found, dict) else None


def _probe_c(ended: Ended) -> float | None:
    """Return the penalty of the winner, or of the probe that it starts from: as in the study, for every fold."""
    places = sorted((ended.directory / "trials").glob(f"-*/{FILE}"))
    info, _ = read_info(ended.output(ended.winner.number))
    for path in places:
        probe = read_json(path)
        if probe.get("backbone") == info.backbone and isinstance(probe.get("c"), float):
            return float(probe["c"])
    return None
