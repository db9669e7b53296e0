"""Compare pruning rules on measured learning curves (`search_curves.py`): what each costs, and what it loses.

    python benchmarks/search_efficiency.py

For every set, seed and number of epochs 16 trials were trained in full. Rules of rungs are replayed through the
project's own `Rungs`, Optuna's pruners in the order of the trials' numbers. At rungs within the first epoch trials are
compared after runs in miniature, or "itself", by their own first steps; "shared" ones begin with the same weights for
all trials, and are scored by 128 images. Cost is in full runs: the epochs given to all trials, those in miniature too,
and LOOK of an epoch for every look at the validation images at a rung, over the epochs of one run. Regret
is the kept validation loss of the best trial that ran to its end over the best of all 16, less one. "Behind" counts
studies that end behind trial 0; "roles" the same with each of the 16 trials as trial 0 in turn, for the documented
default is a bad setting on most of these sets, and so no hard case. Rank correlations (Spearman) compare the order at
a rung with the order of the kept losses.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from statistics import mean, median

import numpy as np
import optuna
import record

from automl_pt.study.pruning.base import TrialProgress
from automl_pt.study.pruning.optuna_rules import PRUNERS
from automl_pt.study.pruning.rungs import Rungs

CURVES = record.RESULTS / "search_curves.json"
#: a look at a fifth as many images as an epoch learns from, at a third of the price of learning from one
LOOK = 0.2 / 3.2
EIGHTH, SIXTH, QUARTER, MORE, HALF = 1 / 8, 1 / 6, 1 / 4, 3 / 8, 1 / 2
MOST = 7 / 8
PARTS = {"1/8": EIGHTH, "1/6": SIXTH, "1/4": QUARTER, "1/3": 1 / 3, "3/8": MORE, "1/2": HALF, "2/3": 2 / 3, "7/8": MOST}
#: for which of them runs in miniature were measured, and the trials themselves
IN_MINIATURE, ITSELF = (EIGHTH, SIXTH, QUARTER, MORE, HALF, MOST), (SIXTH, QUARTER, 1 / 3, HALF, 2 / 3)
#: the epochs a rule gives to each trial, and those that its looks are worth
GivenWeights = tuple[list[float], float]
IN_FULL = math.inf
#: from a study's curves and its number of training images
Rule = Callable[[list[dict], int], GivenWeights]


def finite(value: float | None) -> float:
    return math.inf if value is None or not math.isfinite(value) else value


#: where the losses at a part of the first epoch are
WITHIN = {"raw": "probes", "batch": "batch_probes", "miniature": "miniatures", "shared": "shared"}
#: a look at 128 images after an eighth of an epoch of 1,760
SHARED_LOOK = 128 / 1760 / 3.2


def score(trial: dict, epoch: float, kind: str) -> float:
    if epoch < 1:
        part = next(name for name, point in PARTS.items() if point == epoch)
        return finite(trial[WITHIN[kind]].get(part))
    kind = "batch" if kind == "miniature" else kind
    return finite(trial[kind][int(epoch) - 1]) if len(trial[kind]) >= epoch else math.inf


def kept(trial: dict) -> float:
    return min(finite(loss) for loss in trial["raw"])


def climb(rule: Rungs, trials: list[dict], kind: str = "miniature") -> GivenWeights:
    """Let the rule itself decide; a trial whose loss is not finite at its rung is lost there."""
    progress_list = [TrialProgress(number, {}) for number in range(len(trials))]
    looks, moved = 0.0, True
    small = [level for level in rule.rung_resources if level < 1 and kind != "batch"]
    while moved:
        moved = False
        for number, one in enumerate(progress_list):
            verdict = "promote" if one.epoch == 0 else rule.verdict(number, progress_list, len(trials))
            if one.end is not None or verdict == "wait":
                continue
            moved = True
            if verdict == "prune":
                progress_list[number] = replace(one, end="pruned")
                continue
            level = rule.next_rung(one.epoch)
            if level == rule.rung_resources[-1]:
                progress_list[number] = replace(one, losses={int(level): kept(trials[number])}, end="finished")
                continue
            # with "shared" only the looks before the last in miniature are
            is_shared = kind == "shared" and level in small[:-1]
            looks += SHARED_LOOK if is_shared else LOOK
            loss = score(trials[number], level, kind if is_shared or kind != "shared" else "miniature")
            ranks = {**one.ranks, level: loss}
            progress_list[number] = replace(one, ranks=ranks, end=None if math.isfinite(loss) else "lost")
    ends = [min(one.epoch, len(trial["raw"])) for one, trial in zip(progress_list, trials, strict=True)]
    # each run in miniature begins at the beginning, and so does the trial
    own = [end if end >= 1 or not small else 0.0 for end in ends]
    return [mine + sum(level for level in small if level <= end) for mine, end in zip(own, ends, strict=True)], looks


def of_optuna(name: str, trials: list[dict]) -> GivenWeights:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    epochs = max(len(trial["raw"]) for trial in trials)
    # Hyperband draws a trial's bracket from the study's name: a fixed one makes the replay repeatable
    study = optuna.create_study(
        pruner=PRUNERS[name](epochs), sampler=optuna.samplers.RandomSampler(seed=1), study_name="replay"
    )
    return [float(_one(study, trial)) for trial in trials], 0


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
    study.tell(trial, kept(curves))
    return len(curves["raw"])


@dataclass(frozen=True)
class Climb:
    """A rule of rungs, and the losses that it compares."""

    rungs: Rungs
    kind: str = "miniature"

    def __call__(self, trials: list[dict], images: int) -> GivenWeights:
        return climb(self.rungs, trials, self.kind)

    def is_measured(self, trials: list[dict]) -> bool:
        """Say whether the losses at its rungs within the first epoch are known of every trial."""
        needed = [point for point in self.rungs.rung_resources if point < 1]
        kinds = ["shared"] * (len(needed) - 1) + ["miniature"] if self.kind == "shared" else [self.kind] * len(needed)
        names = [next(name for name, place in PARTS.items() if place == point) for point in needed]
        found = zip(names, kinds, strict=True)
        return all(name in trial.get(WITHIN[kind], {}) for name, kind in found for trial in trials)


def rungs(
    *rung_resources: float, first: float, later: float = 1.6, margin: float = 0.03, kind: str = "miniature"
) -> Climb:
    return Climb(Rungs(rung_resources, (first, later), 2, margin), kind)


def small(*rung_resources: float, margin: float = 0.03) -> Climb:
    return rungs(*rung_resources, first=2.6, later=3, margin=margin)


def once(*rung_resources: float) -> Climb:
    return rungs(*rung_resources, first=7.8, later=1)


RULES: dict[int, dict[str, Rule]] = {
    5: {
        "1/6 2 5, 16-3-2, itself": rungs(SIXTH, 2, 5, first=5, kind="batch"),
        "1/2 2 5, 16-3-2, itself": rungs(HALF, 2, 5, first=5, kind="batch"),
        "1/6 2 5, 16-3-2": rungs(SIXTH, 2, 5, first=5),
        "1/2 2 5, 16-3-2": rungs(HALF, 2, 5, first=5),
        "1/6 2 5, 16-4-2": rungs(SIXTH, 2, 5, first=4),
        "1/8 1 5, 16-5-2": rungs(EIGHTH, 1, 5, first=3, later=2.5),
        "1/6 1 2 5, 16-5-3-2": rungs(SIXTH, 1, 2, 5, first=3),
        "1/2 5, 16-2 (before, few images)": once(HALF, 5),
        "3/8 5, 16-2": once(MORE, 5),
        "7/8 5, 16-2": once(MOST, 5),
        "1/2 7/8 5, 16-6-2": small(HALF, MOST, 5),
        "1/8 7/8 5, 16-6-2": small(EIGHTH, MOST, 5),
        "1/8 1/2 5, 16-6-2": small(EIGHTH, HALF, 5),
        "1/6 1/2 5, 16-6-2": small(SIXTH, HALF, 5),
        "1/8 3/8 5, 16-6-2": small(EIGHTH, MORE, 5),
        "1/6 3/8 5, 16-6-2": small(SIXTH, MORE, 5),
        "1/8 1/2 5, 16-5-2": rungs(EIGHTH, HALF, 5, first=3, later=2.5),
        "1/8 shared 1/2 5, 16-6-2": rungs(EIGHTH, HALF, 5, first=2.6, later=3, kind="shared"),
        "1/8 shared 1/2 5, 16-5-2": rungs(EIGHTH, HALF, 5, first=3, later=2.5, kind="shared"),
        "1/8 shared 1/2 5, 16-4-2": rungs(EIGHTH, HALF, 5, first=4, later=2, kind="shared"),
        "1/8 shared 3/8 5, 16-5-2": rungs(EIGHTH, MORE, 5, first=3, later=2.5, kind="shared"),
        "1/8 1/2 5, 16-8-2": rungs(EIGHTH, HALF, 5, first=2, later=4),
        "1/8 1/2 2 5, 16-6-3-2": rungs(EIGHTH, HALF, 2, 5, first=2.6, later=2),
        "1/8 1/2 5, 16-6-2, margin 0": small(EIGHTH, HALF, 5, margin=0.0),
        "1/8 1/2 5, 16-6-2, margin 0.1": small(EIGHTH, HALF, 5, margin=0.1),
        "1/8 1/2 5, 16-6-2, default in full": small(EIGHTH, HALF, 5, margin=IN_FULL),
    },
    9: {
        "1/6 1 3 9, 16-5-3-2, itself": rungs(SIXTH, 1, 3, 9, first=3, kind="batch"),
        "1/2 1 3 9, 16-5-3-2, itself": rungs(HALF, 1, 3, 9, first=3, kind="batch"),
        "1/8 1 3 9, 16-5-3-2": rungs(EIGHTH, 1, 3, 9, first=3),
        "1/6 1 3 9, 16-5-3-2": rungs(SIXTH, 1, 3, 9, first=3),
        "1/2 1 3 9, 16-5-3-2 (before)": rungs(HALF, 1, 3, 9, first=3),
        "1/8 3 9, 16-3-2": rungs(EIGHTH, 3, 9, first=5),
        "1/2 1 9, 16-5-2": rungs(HALF, 1, 9, first=3, later=2.5),
        "7/8 9, 16-2": once(MOST, 9),
        "7/8 4 9, 16-3-2": rungs(MOST, 4, 9, first=5, later=1.5),
        "1/8 7/8 9, 16-6-2": small(EIGHTH, MOST, 9),
        "1/8 1 9, 16-5-2": rungs(EIGHTH, 1, 9, first=3, later=2.5),
        "1/8 1/2 9, 16-6-2": small(EIGHTH, HALF, 9),
        "1/8 1 3 9, 16-5-3-2, margin 0": rungs(EIGHTH, 1, 3, 9, first=3, margin=0.0),
        "1/8 1 3 9, 16-5-3-2, margin 0.1": rungs(EIGHTH, 1, 3, 9, first=3, margin=0.1),
        "1/8 1 3 9, 16-5-3-2, default in full": rungs(EIGHTH, 1, 3, 9, first=3, margin=IN_FULL),
    },
    15: {
        "1/8 2 5 15, 16-5-3-2 (before, many images)": rungs(EIGHTH, 2, 5, 15, first=3),
        "1/2 2 5 15, 16-5-3-2 (before, few images)": rungs(HALF, 2, 5, 15, first=3),
        "1/8 1 5 15, 16-5-3-2": rungs(EIGHTH, 1, 5, 15, first=3),
        "1/8 1 3 15, 16-5-3-2": rungs(EIGHTH, 1, 3, 15, first=3),
        "1/8 1 2 5 15, 16-5-3-2-2": rungs(EIGHTH, 1, 2, 5, 15, first=3),
        "1/8 1 15, 16-5-2": rungs(EIGHTH, 1, 15, first=3, later=2.5),
        "1/8 2 15, 16-5-2": rungs(EIGHTH, 2, 15, first=3, later=2.5),
        "1/8 1/2 15, 16-6-2": small(EIGHTH, HALF, 15),
        "1/8 shared 1/2 15, 16-5-2": rungs(EIGHTH, HALF, 15, first=3, later=2.5, kind="shared"),
        "1/2 1 15, 16-5-2": rungs(HALF, 1, 15, first=3, later=2.5),
        "7/8 15, 16-2": once(MOST, 15),
        "7/8 7 15, 16-3-2": rungs(MOST, 7, 15, first=5, later=1.5),
        "1/8 2 5 15, 16-5-3-2, default in full": rungs(EIGHTH, 2, 5, 15, first=3, margin=IN_FULL),
    },
}


def rules(epochs: int) -> dict[str, Rule]:
    offered = {
        f"optuna {name}": (lambda trials, images, name=name: of_optuna(name, trials))
        for name in sorted(PRUNERS)
        if name != "none"
    }
    return {
        **offered,
        **RULES[epochs],
        "the default rule": lambda trials, images: climb(Rungs.over(epochs, images), trials),
    }


def judge(rule: Rule, trials: list[dict], images: int) -> dict[str, float]:
    epochs = max(len(trial["raw"]) for trial in trials)
    given, looks = rule(trials, images)
    found = min(kept(trial) for trial, done in zip(trials, given, strict=True) if done >= epochs)
    cost = (sum(given) + looks) / epochs
    regret = found / min(kept(trial) for trial in trials) - 1
    return {"cost": round(cost, 3), "regret": round(regret, 4), "behind": float(found > kept(trials[0]))}


def roles(trials: list[dict]) -> list[list[dict]]:
    """Give each trial the part of trial 0 in turn."""
    return [[trials[one], *trials[:one], *trials[one + 1 :]] for one in range(len(trials))]


def summary(judged: list[dict[str, float]]) -> dict[str, float]:
    regrets = [one["regret"] for one in judged]
    figures = {"full_runs": mean(one["cost"] for one in judged), "regret_median": median(regrets)}
    figures |= {"regret_mean": mean(regrets), "regret_worst": max(regrets)}
    rounded = {key: round(value, 4) for key, value in figures.items()}
    return {**rounded, "behind": int(sum(one["behind"] for one in judged)), "of": len(judged)}


def rank_correlation(first: list[float], second: list[float]) -> float:
    ranks = [np.argsort(np.argsort(values, kind="stable"), kind="stable") for values in (first, second)]
    return float(np.corrcoef(*ranks)[0, 1])


def correlations(studies: list[list[dict]], epochs: int) -> dict[str, dict[str, float]]:
    points = [point for point in (*PARTS.values(), 1, 2, 3, 5) if point < epochs]
    found: dict[str, dict[str, float]] = {}
    for kind in ("raw", "ema", "batch", "miniature"):
        for point in points:
            measured = {"ema": (), "miniature": IN_MINIATURE}.get(kind, ITSELF)
            if point < 1 and point not in measured or point >= 1 and kind == "miniature":
                continue
            part = next((name for name, place in PARTS.items() if place == point), None)
            if part is not None and not all(part in trial[WITHIN[kind]] for trials in studies for trial in trials):
                continue
            values = [
                rank_correlation([score(one, point, kind) for one in trials], [kept(one) for one in trials])
                for trials in studies
            ]
            found.setdefault(kind, {})[f"{point:.2g}"] = round(mean(values), 2)
    return found


def main() -> None:
    if not CURVES.exists():
        raise SystemExit(f"no curves at {CURVES}: measure them with search_curves.py first")
    curves = json.loads(CURVES.read_text())
    results: dict[str, dict] = {}
    sizes = ("", "large", "resnet18", "large.resnet18")
    for size, epochs in product((*sizes, *(f"{size}.clean".strip(".") for size in sizes)), RULES):
        studies = {
            key: (value["trials"], value["images"][0])
            for key, value in sorted(curves.items())
            if key.endswith(f"-{epochs}") and key.split("-")[0].partition(".")[2] == size
        }
        if studies:
            results[f"{epochs} {size}".strip()] = compare(studies, epochs, size)
    record.write("search_efficiency", look=LOOK, epochs=results)


def compare(studies: dict[str, tuple[list[dict], int]], epochs: int, size: str) -> dict[str, dict]:
    """Print and return what each rule costs and loses over `studies`, and the rank correlations there."""
    results: dict[str, dict] = {}
    print(f"\n{epochs} epochs {size}, {len(studies)} studies: {', '.join(studies)}")
    print(f"{'rule':52} {'full runs':>9} {'regret median':>13} {'mean':>6} {'worst':>7} {'behind':>8} {'roles':>9}")
    for name, rule in rules(epochs).items():
        if isinstance(rule, Climb) and not all(rule.is_measured(trials) for trials, _ in studies.values()):
            continue
        each = {key: judge(rule, *study) for key, study in studies.items()}
        played = [judge(rule, cast, images) for trials, images in studies.values() for cast in roles(trials)]
        told, cast_told = summary(list(each.values())), summary(played)
        seeds = {part: [each[key] for key in each if key.split("-")[1] in part] for part in ("123", "456")}
        print(
            f"{name:52} {told['full_runs']:9.2f} {told['regret_median']:13.1%} {told['regret_mean']:6.1%} "
            f"{told['regret_worst']:7.1%} {told['behind']:3} of {told['of']:2} "
            f"{cast_told['behind']:3} of {cast_told['of']:3}"
        )
        by_seeds = {part: summary(found) for part, found in seeds.items() if found}
        results[name] = {**told, "roles": cast_told, "seeds": by_seeds, "each": each}
    table = correlations([trials for trials, _ in studies.values()], epochs)
    for kind, row in table.items():
        print(f"rank correlation {kind:6}", "  ".join(f"{point}: {value:5.2f}" for point, value in row.items()))
    return {**results, "rank correlations": table}


if __name__ == "__main__":
    main()
