"""Compare pruning rules on measured learning curves (`search_curves.py`): what each costs, and what it loses.

    python benchmarks/search_efficiency.py

For every set and seed 16 trials were trained in full. A rule is replayed on their curves in the order of their numbers.
Cost is in full runs (epochs given to all trials over the epochs of one); regret is the kept validation loss of the best
trial that ran to its end over the best of all 16, less one; "worse than trial 0" counts studies that end behind the
documented default. Rank correlations (Spearman) compare the order at a rung with the order of the kept losses.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median

import numpy as np
import optuna
import record

from automl_pt.study.pruning.optuna_rules import PRUNERS

CURVES = Path(__file__).parent / "results" / "search_curves.json"
#: scores a trial by its curves and an epoch; epochs 1/3 and 2/3 are the probes within the first epoch
Score = Callable[[dict, float], float]
#: the epochs a rule gives to each trial
Replay = Callable[[list[dict]], list[float]]


def finite(value: float | None) -> float:
    return math.inf if value is None or not math.isfinite(value) else value


def score_by(name: str) -> Score:
    def score(trial: dict, epoch: float) -> float:
        if epoch < 1:
            probes = trial["batch_probes" if name == "batch" else "probes"]
            return finite(probes[0 if epoch < 0.5 else 1])
        return finite(trial[name][: int(epoch)][-1]) if len(trial[name]) >= epoch else math.inf

    return score


def best_raw(trial: dict, epoch: float) -> float:
    return (
        min((finite(loss) for loss in trial["raw"][: int(epoch)]), default=math.inf)
        if epoch >= 1
        else finite(trial["probes"][0])
    )


def lower_of_both(trial: dict, epoch: float) -> float:
    return min(score_by("raw")(trial, epoch), score_by("ema")(trial, epoch))


def climb(levels: tuple[float, ...], reduction: float, keep: int, score: Score) -> Replay:
    """Return a rule's replay: the epochs it gives each trial (a diverged one ends where it diverged)."""

    def replay(trials: list[dict]) -> list[float]:
        given = [0.0] * len(trials)
        there = list(range(len(trials)))
        for rung, level in enumerate(levels):
            for number in there:
                given[number] = min(level, len(trials[number]["raw"]))
            if rung + 1 < len(levels):
                quota = min(len(there), max(keep, int(len(there) / reduction)))
                there = sorted(there, key=lambda number: (score(trials[number], level), number))[:quota]
        return given

    return replay


def default_in_full(levels: tuple[float, ...], reduction: float, keep: int, score: Score) -> Replay:
    """Replay the rule as it is built: trial 0 runs in full, the others climb among themselves."""
    rule = climb(levels, reduction, keep, score)
    return lambda trials: [float(len(trials[0]["raw"])), *rule(trials[1:])]


def of_optuna(name: str) -> Replay:
    def replay(trials: list[dict]) -> list[float]:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        epochs = max(len(trial["raw"]) for trial in trials)
        # Hyperband draws a trial's bracket from the study's name: a fixed one makes the replay repeatable
        study = optuna.create_study(
            pruner=PRUNERS[name](epochs), sampler=optuna.samplers.RandomSampler(seed=1), study_name="replay"
        )
        return [float(_one(study, trial)) for trial in trials]

    return replay


def _one(study: optuna.Study, curves: dict) -> int:
    trial = study.ask()
    for epoch, loss in enumerate(curves["raw"], start=1):
        if not math.isfinite(finite(loss)):
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return epoch
        trial.report(loss, epoch)
        if epoch < len(curves["raw"]) and trial.should_prune():
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return epoch
    study.tell(trial, min(finite(loss) for loss in curves["raw"]))
    return len(curves["raw"])


RULES: dict[str, Replay] = {
    "none": climb((9,), 3, 2, best_raw),
    **{f"optuna {name}": of_optuna(name) for name in sorted(PRUNERS) if name != "none"},
    "rungs 1-3-9, keep 2, raw": climb((1, 3, 9), 3, 2, score_by("raw")),
    "rungs 1-3-9, keep 2, best raw": climb((1, 3, 9), 3, 2, best_raw),
    "rungs 1-3-9, keep 2, moving average": climb((1, 3, 9), 3, 2, score_by("ema")),
    "rungs 1-3-9, keep 2, lower of both": climb((1, 3, 9), 3, 2, lower_of_both),
    "rungs 1-3-9, keep 2, batch statistics": climb((1, 3, 9), 3, 2, score_by("batch")),
    "rungs 1-3-9, keep 1, raw": climb((1, 3, 9), 3, 1, score_by("raw")),
    "rungs 1-3-9, keep 3, raw": climb((1, 3, 9), 3, 3, score_by("raw")),
    "rungs 1-9, keep 2, raw": climb((1, 9), 8, 2, score_by("raw")),
    "rungs 1-9, keep 2, moving average": climb((1, 9), 8, 2, score_by("ema")),
    "rungs 1-9, keep 2, batch statistics": climb((1, 9), 8, 2, score_by("batch")),
    "rungs 1-9, keep 3, batch statistics": climb((1, 9), 5, 3, score_by("batch")),
    "rungs 1-9, keep 1, batch statistics": climb((1, 9), 16, 1, score_by("batch")),
    "rungs 1-3-9, keep 1, batch statistics": climb((1, 3, 9), 4, 1, score_by("batch")),
    "rungs 1-2-9, keep 2, raw": climb((1, 2, 9), 3, 2, score_by("raw")),
    "rungs 1-2-4-9, reduction 2, raw": climb((1, 2, 4, 9), 2, 2, score_by("raw")),
    "rungs 1-3-6-9, keep 2 then 1, raw": climb((1, 3, 6, 9), 3, 1, score_by("raw")),
    "rungs 1/3-1-3-9, keep 2, raw": climb((1 / 3, 1, 3, 9), 2.5, 2, score_by("raw")),
    "rungs 2-9, keep 2, raw": climb((2, 9), 8, 2, score_by("raw")),
    # rungs within the first epoch, ranked by batch statistics
    "rungs 1/3-1-3-9, keep 2, batch statistics": climb((1 / 3, 1, 3, 9), 3, 2, score_by("batch")),
    "rungs 1/3-2-9, keep 2, batch statistics": climb((1 / 3, 2, 9), 3, 2, score_by("batch")),
    "rungs 1/3-3-9, keep 2, batch statistics": climb((1 / 3, 3, 9), 3, 2, score_by("batch")),
    "rungs 2/3-3-9, keep 2, batch statistics": climb((2 / 3, 3, 9), 3, 2, score_by("batch")),
    # trial 0 in full, out of competition; the first of them is the default rule
    "default + rungs 1/3-3-9, keep 2, batch": default_in_full((1 / 3, 3, 9), 3, 2, score_by("batch")),
    "default + rungs 1-3-9, keep 2, batch": default_in_full((1, 3, 9), 3, 2, score_by("batch")),
    "default + rungs 1-3-9, keep 1, batch": default_in_full((1, 3, 9), 3, 1, score_by("batch")),
    "default + rungs 1/3-1-3-9, keep 2, batch": default_in_full((1 / 3, 1, 3, 9), 3, 2, score_by("batch")),
    "default + rungs 1/3-1-3-9, keep 1, batch": default_in_full((1 / 3, 1, 3, 9), 3, 1, score_by("batch")),
}


def kept(trial: dict, epochs: float) -> float:
    return best_raw(trial, max(1, epochs)) if epochs >= 1 else math.inf


def judge(replay: Replay, trials: list[dict]) -> dict[str, float]:
    epochs = max(len(trial["raw"]) for trial in trials)
    given = replay(trials)
    ended = [trial for trial, done in zip(trials, given, strict=True) if done == epochs]
    found = min(kept(trial, epochs) for trial in ended)
    best = min(kept(trial, epochs) for trial in trials)
    default = kept(trials[0], epochs)
    return {"cost": sum(given) / epochs, "regret": found / best - 1, "behind_default": float(found > default)}


def rank_correlation(first: list[float], second: list[float]) -> float:
    ranks = [np.argsort(np.argsort(values, kind="stable"), kind="stable") for values in (first, second)]
    return float(np.corrcoef(*ranks)[0, 1])


def correlations(studies: dict[str, list[dict]]) -> dict[str, dict[str, float]]:
    scores: dict[str, Score] = {name: score_by(name) for name in ("raw", "ema", "batch")}
    found: dict[str, dict[str, float]] = {}
    for name, score in {**scores, "best raw": best_raw}.items():
        found[name] = {}
        for epoch in (1 / 3, 2 / 3, 1, 2, 3, 5):
            if epoch < 1 and name not in ("raw", "batch"):
                continue
            values = [
                rank_correlation([score(one, epoch) for one in trials], [kept(one, 9) for one in trials])
                for trials in studies.values()
            ]
            found[name][f"{epoch:.2g}"] = round(mean(values), 2)
    return found


def resample(studies: dict[str, list[dict]], draws: int = 200) -> dict[str, dict[str, float]]:
    """Replay the rules that run trial 0 in full on random 12 of each study's 16 trials, trial 0 among them."""
    found: dict[str, dict[str, float]] = {}
    for name in (name for name in RULES if name.startswith("default")):
        draw = random.Random(1)
        samples = [[one[0], *draw.sample(one[1:], 11)] for one in studies.values() for _ in range(draws)]
        judged = [judge(RULES[name], trials) for trials in samples]
        regrets = [one["regret"] for one in judged]
        figures = {"full_runs": mean(one["cost"] for one in judged), "regret_mean": mean(regrets)}
        figures |= {"regret_90_percent": float(np.quantile(regrets, 0.9)), "regret_worst": max(regrets)}
        found[name] = {key: round(value, 4) for key, value in figures.items()}
    return found


def main() -> None:
    studies = {key: value["trials"] for key, value in json.loads(CURVES.read_text()).items()}
    print(f"{len(studies)} studies: {', '.join(sorted(studies))}\n")
    print(f"{'rule':42} {'full runs':>9} {'regret median':>13} {'worst':>7} {'behind default':>14}")
    figures = {}
    for name, replay in RULES.items():
        each = {key: judge(replay, trials) for key, trials in sorted(studies.items())}
        regrets = [one["regret"] for one in each.values()]
        cost, behind = (
            mean(one["cost"] for one in each.values()),
            int(sum(one["behind_default"] for one in each.values())),
        )
        print(f"{name:42} {cost:9.2f} {median(regrets):13.1%} {max(regrets):7.1%} {behind:>10} of {len(each)}")
        figures[name] = {
            "full_runs": round(cost, 3),
            "regret_median": round(median(regrets), 4),
            "regret_worst": round(max(regrets), 4),
            "behind_default": behind,
            "each": each,
        }
    table = correlations(studies)
    print("\nrank correlation with the final order after so many epochs")
    for name, row in table.items():
        print(f"{name:12}", "  ".join(f"{epoch}: {value:5.2f}" for epoch, value in row.items()))
    resampled = resample(studies)
    print("\nrandom 12 of the 16 trials")
    for name, row in resampled.items():
        print(f"{name:42}", "  ".join(f"{key} {value}" for key, value in row.items()))
    record.write("search_efficiency", rules=figures, rank_correlations=table, random_12_of_16=resampled)


if __name__ == "__main__":
    main()
