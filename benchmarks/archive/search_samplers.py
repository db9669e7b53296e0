"""Compare samplers, and coordinates for them, on smooth pictures of measured trials (`search_surrogate.py`).

    python benchmarks/archive/search_samplers.py        about six minutes of one core
    python benchmarks/archive/search_samplers.py gp     Optuna's GP sampler in place of TPE, more studies of 64 trials

Told first, per set and number of epochs: how well the picture tells a trial left out, and how the best learning rate
depends on the batch size. Then samplers search the pictures: 16 trials on all, 64 on those of 9 epochs. Every trial is
told with noise, as wide as the picture's own; the noise depends on the seed and the trial's number alone, so samplers
are paired by seeds. The trial told best is taken, and its loss without noise compared with the least there is. Trials
run one at a time and all to the end: neither rungs nor workers are in play here. One thread.
"""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
import record
import torch
from search_surrogate import LR, SIZES, Surrogate, describe, measured, surrogate

from automl_pt.core.seeds import derive_seed
from automl_pt.study.space import sampler as sampling
from automl_pt.study.space.space import Space

SPACE = Space(LR, SIZES, ("narrow",))
POWERS = {"plain": 0.0, "root": 0.5, "batch": 1.0}
SEEDS = 50
#: samplers too slow for that, or left out: studies of 16 trials, of 64
FEWER = {
    "Optuna's TPE, root": (50, 0),
    "Optuna's TPE, batch": (50, 0),
    "product, root, start of 5": (50, 0),
    "product, root, start of 14": (50, 0),
    "Optuna's GP, plain": (8, 0),
    "start, then GP, root": (8, 4),
    "start, then GP, batch": (8, 4),
    "start, then GP by rank, batch": (8, 0),
    "start, then GP by rank, root": (0, 0),
}
TODAY = "product, root"
LONG = dict.fromkeys((TODAY, "start, then GP, root", "start, then GP by rank, root"), (0, 20))

Params = dict[str, Any]
MakeExtra = Callable[[int], optuna.samplers.BaseSampler]


@dataclass
class Told:
    """What a study knows: the parameters and noisy losses of its trials, and the CPU seconds its sampler took."""

    params: dict[int, Params] = field(default_factory=dict)
    losses: dict[int, float] = field(default_factory=dict)
    seconds: float = 0.0

    def ranking(self) -> list[int]:
        return sorted(self.losses, key=lambda one: self.losses[one])


#: begins a study of a seed; what it returns gives the parameters of each trial in turn
Sampler = Callable[[int, Told], Callable[[int], Params]]


@contextmanager
def settings(power: float, startup: int) -> Iterator[None]:
    """Give the product's sampling other coordinates, or another length of its start."""
    before = sampling.EXPONENT, sampling.STARTUP
    sampling.EXPONENT, sampling.STARTUP = power, startup
    try:
        yield
    finally:
        sampling.EXPONENT, sampling.STARTUP = before


def product(power: float = sampling.EXPONENT, startup: int = sampling.STARTUP) -> Sampler:
    """The product's own sampling, by default as it is."""

    def begin(seed: int, told: Told) -> Callable[[int], Params]:
        def ask(number: int) -> Params:
            with settings(power, startup):
                return sampling.suggest(SPACE, told.params, told.ranking(), seed=seed, number=number)

        return ask

    return begin


def started(make: MakeExtra, power: float, by_rank: bool) -> Sampler:
    """The product's trial 0 and start, then another sampler, told losses or the places in their order."""

    def begin(seed: int, told: Told) -> Callable[[int], Params]:
        def ask(number: int) -> Params:
            if number < sampling.STARTUP:
                return sampling.suggest(SPACE, told.params, told.ranking(), seed=seed, number=number)
            with settings(power, sampling.STARTUP):
                return _ask(make(derive_seed(seed, "sampler", number) % 2**32), told, by_rank)

        return ask

    return begin


def _ask(sampler: optuna.samplers.BaseSampler, told: Told, by_rank: bool) -> Params:
    study, distributions = optuna.create_study(sampler=sampler), sampling._coordinates(SPACE)
    values = {number: place for place, number in enumerate(told.ranking())} if by_rank else told.losses
    for number, params in sorted(told.params.items()):
        study.add_trial(sampling._told(SPACE, params, distributions, values[number]))  # type: ignore[arg-type]
    for _ in range(sampling.CANDIDATES):
        found = sampling._plain(SPACE, study.ask(distributions).params)
        if LR[0] <= found["lr"] <= LR[1]:
            break
    return {**found, "lr": min(LR[1], max(LR[0], found["lr"]))}


def of_optuna(make: MakeExtra, power: float = 0.0) -> Sampler:
    """One of Optuna's samplers from the first trial on, in one study; trials out of range are told as failed."""

    def begin(seed: int, told: Told) -> Callable[[int], Params]:
        study, asked = optuna.create_study(sampler=make(seed)), {}

        def ask(number: int) -> Params:
            if number:
                study.tell(asked[number - 1], told.losses[number - 1])
            with settings(power, sampling.STARTUP):
                distributions = sampling._coordinates(SPACE)
                for attempt in range(sampling.CANDIDATES):
                    asked[number] = study.ask(distributions)
                    found = sampling._plain(SPACE, asked[number].params)
                    if LR[0] <= found["lr"] <= LR[1] or attempt == sampling.CANDIDATES - 1:
                        break
                    study.tell(asked[number], state=optuna.trial.TrialState.FAIL)
            return {**found, "lr": min(LR[1], max(LR[0], found["lr"]))}

        return ask

    return begin


def tpe(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(seed=seed)


def gp(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.GPSampler(seed=seed, n_startup_trials=10)


SAMPLERS: dict[str, Sampler] = {
    "random": of_optuna(lambda seed: optuna.samplers.RandomSampler(seed=seed)),
    "Sobol": of_optuna(lambda seed: optuna.samplers.QMCSampler(scramble=True, seed=seed)),
    "product's start only (Halton)": product(startup=1000),
    **{f"Optuna's TPE, {name}": of_optuna(tpe, power) for name, power in POWERS.items()},
    **{f"product, {name}": product(power) for name, power in POWERS.items()},
    "product, root, start of 5": product(startup=5),
    "product, root, start of 14": product(startup=14),
    "Optuna's GP, plain": of_optuna(gp),
    **{f"start, then GP, {name}": started(gp, POWERS[name], by_rank=False) for name in ("root", "batch")},
    **{f"start, then GP by rank, {name}": started(gp, POWERS[name], by_rank=True) for name in ("batch", "root")},
}


def search(begin: Sampler, on: Surrogate, seed: int, trials: int) -> dict[int, dict[str, float]]:
    """Search one picture; return the regrets after 16 trials and after all, and CPU seconds an ask."""
    told, true, results = Told(), [], {}
    ask = begin(seed, told)
    for number in range(trials):
        began = time.process_time()
        params = ask(number)
        told.seconds += time.process_time() - began
        true.append(on.log_loss(params["lr"], params["batch_size"]))
        noise = on.noise * np.random.default_rng([seed, number]).standard_normal()
        told.params[number], told.losses[number] = params, math.exp(true[-1] + noise)
        if number + 1 in (16, trials):
            chosen = true[told.ranking()[0]]
            regrets = {"regret": math.expm1(chosen - on.best), "least": math.expm1(min(true) - on.best)}
            results[number + 1] = {**regrets, "seconds": told.seconds / (number + 1)}
    return results


def samplers_on(
    pictures: dict[str, Surrogate], plan: dict[str, tuple[int, int]]
) -> dict[str, dict[str, dict[str, list[dict[str, float]]]]]:
    """Let every sampler search every picture: results by trials, sampler and picture, a list over the seeds."""
    found: dict[str, dict[str, dict[str, list[dict[str, float]]]]] = {}
    for name, (few, many) in plan.items():
        for key, on in pictures.items():
            long = many if key.endswith("-9") else 0
            for seed in range(1, max(few, long) + 1):
                for trials, figures in search(SAMPLERS[name], on, seed, 64 if seed <= long else 16).items():
                    found.setdefault(str(trials), {}).setdefault(name, {}).setdefault(key, []).append(figures)
        print(f"  {name}: {time.process_time():.0f} CPU seconds so far", flush=True)
    return found


def gain(ours: list[dict[str, float]], today: list[dict[str, float]], seed: int = 1) -> dict[str, float]:
    """Compare regrets seed by seed with today's: mean difference, its 90 % interval, shares of better and worse."""
    pairs = zip(ours, today, strict=False)
    differences = np.array([one["regret"] - other["regret"] for one, other in pairs])
    drawn = np.random.default_rng(seed).choice(differences, (1000, len(differences))).mean(axis=1)
    low, high = np.quantile(drawn, [0.05, 0.95])
    figures = {"mean": differences.mean(), "low": low, "high": high}
    figures |= {"better": (differences < 0).mean(), "worse": (differences > 0).mean()}
    return {name: round(float(value), 4) for name, value in figures.items()}


def summary(by_set: dict[str, list[dict[str, float]]], today: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for key, studies in by_set.items():
        regrets = [one["regret"] for one in studies]
        told = {"median": np.median(regrets), "p90": np.quantile(regrets, 0.9), "mean": np.mean(regrets)}
        told["least_median"] = np.median([one["least"] for one in studies])
        rounded = {name: round(float(value), 4) for name, value in told.items()}
        figures[key] = {"studies": len(studies), **rounded, "against_today": gain(studies, today[key])}
    seconds = [one["seconds"] for studies in by_set.values() for one in studies]
    return {"milliseconds_an_ask": round(1000 * float(np.mean(seconds)), 2), "sets": figures}


def show(trials: str, table: dict[str, dict[str, Any]]) -> None:
    keys = list(table[TODAY]["sets"])
    print(f"\n{trials} trials: regret, median / 90th percentile; (mean less today's, 90 % interval)")
    print(f"{'':30} {'ms':>6} " + " ".join(f"{key:>34}" for key in keys))
    for name, row in table.items():
        cells = []
        for key in keys:
            one = row["sets"][key]
            less = one["against_today"]
            told = f"{one['median']:.1%} / {one['p90']:.1%}"
            cells.append(f"{told:>15} ({less['mean']:+.1%}, {less['low']:+.1%} {less['high']:+.1%})".rjust(34))
        print(f"{name:30} {row['milliseconds_an_ask']:6.1f} " + " ".join(cells))


def compare(pictures: dict[str, Surrogate], plan: dict[str, tuple[int, int]]) -> dict[str, dict[str, dict[str, Any]]]:
    tables = {}
    for trials, samplers in samplers_on(pictures, plan).items():
        tables[trials] = {name: summary(by_set, samplers[TODAY]) for name, by_set in samplers.items()}
        show(trials, tables[trials])
    return tables


def main() -> None:
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    sets = measured()
    fitted = {name: surrogate(trials) for name, trials in sets.items()}
    pictures = {name: found for name, (found, _) in fitted.items()}
    if sys.argv[1:] == ["gp"]:
        record.write("search_samplers_gp", samplers=compare(pictures, LONG), cpu_seconds=round(time.process_time(), 1))
        return
    told = {name: describe(trials, *fitted[name]) for name, trials in sets.items()}
    for name, figures in told.items():
        print(f"\n{name}", *(f"  {key:24} {value}" for key, value in figures.items()), sep="\n")
    tables = compare(pictures, {name: FEWER.get(name, (SEEDS, SEEDS)) for name in SAMPLERS})
    seconds = round(time.process_time(), 1)
    print(f"\n{seconds} CPU seconds")
    record.write("search_samplers", cpu_seconds=seconds, pictures=told, samplers=tables)


if __name__ == "__main__":
    main()
