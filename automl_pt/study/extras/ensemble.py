"""Combines the best trials into one model that averages their probabilities, and measures its gain and cost."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

from automl_pt.model.directory import save_model
from automl_pt.model.ensemble import join_infos, join_states
from automl_pt.model.load import Model
from automl_pt.study.executor.base import Caller
from automl_pt.study.extras.evaluator import ModelEvaluator, gain
from automl_pt.study.extras.extras import Ended


def make_ensemble(ended: Ended) -> Generator[str, None, dict[str, Any] | None]:
    """Write `model-ensemble` and evaluate it on the validation images, and once on those of the test split.

    Members share the winner's preprocessing, so that one batch of images serves all. `model` is None if there is only
    one such trial.
    """
    evaluator = ModelEvaluator.of(ended.config, ended.directory, ended.plugins, Caller(alive=ended.should_stop))
    wanted = ended.trials[: ended.config.ensemble]
    models = {trial.number: evaluator.load(ended.output(trial.number)) for trial in wanted}
    best = models[wanted[0].number]
    members = {number: model for number, model in models.items() if model.info.preprocessing == best.info.preprocessing}
    for reason in _left_out(ended, len(models), len(members)):
        yield f"ensemble: {reason}"
    if len(members) < 2:
        return {"model": None, "members": list(members), "test": None}
    target = ended.directory / "model-ensemble"
    titles = [f"trial {number}" for number in members]
    info = join_infos([model.info for model in members.values()], titles)
    save_model(target, join_states([model.network.state_dict() for model in members.values()]), info)
    joined = evaluator.load(target)
    found = {**gain(evaluator.score(joined), evaluator.score(best)), **_cost(evaluator, joined, best)}
    metrics = {name: found[name] for name in ("val_loss", "val_accuracy", "loss_gain", "loss_standard_error")}
    save_model(target, joined.network.state_dict(), replace(joined.info, metrics=metrics))
    test = yield from evaluator.tested(joined, "ensemble")
    return {"model": str(target), "members": list(members), **found, "test": test}


def _left_out(ended: Ended, loaded: int, members: int) -> list[str]:
    reasons = []
    if loaded < (ended.config.ensemble or 0):
        there = "1 trial has weights" if loaded == 1 else f"{loaded} trials have weights"
        reasons.append(
            f"{there}, not {ended.config.ensemble}: trials pruned after a proxy run have "
            "none, and others were removed; `--pruner none` runs every trial in full"
        )
    if members < loaded:
        reasons.append(f"{loaded - members} trials are skipped, because they use other preprocessing than the best one")
    return reasons


def _cost(evaluator: ModelEvaluator, joined: Model, best: Model) -> dict[str, float]:
    times = evaluator.milliseconds(joined), evaluator.milliseconds(best)
    return {"ms_per_image": times[0], "best_ms_per_image": times[1], "times_slower": times[0] / times[1]}
