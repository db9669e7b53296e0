"""Chooses the parameters of the next trial: a pure function of the study's seed, the trial's number and past trials.

Trial 0 is the documented default. A space-filling start follows, then Optuna's TPE, on an in-memory copy in which
only the order of the trials matters, so that trials of different length can be compared, and a restarted coordinator
gets the same parameters as the killed one.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from automl_pt.core.seeds import derive_seed
from automl_pt.study.quiet import quiet
from automl_pt.study.space.space import DEFAULT_BATCH_SIZE, Space

#: trials before TPE begins, including the default
STARTUP = 10
#: learning rates are searched as `lr / (batch_size / 16) ** EXPONENT`; docs/evidence/search.md compares powers
EXPONENT = 0.5
CANDIDATES = 20


def suggest(
    space: Space, params: Mapping[int, Mapping[str, Any]], ranking: Sequence[int], *, seed: int, number: int
) -> dict[str, Any]:
    """Return the parameters of trial `number`.

    `params` holds those of all trials so far; `ranking` the numbers of the comparable ones, best first. The others are
    running, and TPE avoids their points.
    """
    if number == 0:
        return space.default()
    if number < STARTUP or not ranking:
        return space.at(filling(seed, number, space.axes))
    return _ask_tpe(space, params, ranking, derive_seed(seed, "sampler", number))


def filling(seed: int, number: int, axes: int) -> list[float]:
    """Return `axes` coordinates of point `number` of a randomly shifted Halton sequence (Cranley, Patterson, 1976)."""
    shifts = np.random.default_rng(derive_seed(seed, "space filling")).random(axes)
    return [(_radical_inverse(number, base) + shift) % 1 for base, shift in zip(_primes(), shifts, strict=False)]


def _primes() -> Iterator[int]:
    return (n for n in count(2) if all(n % divisor for divisor in range(2, int(n**0.5) + 1)))


def _radical_inverse(number: int, base: int) -> float:
    """Mirror the digits of `number` in `base` at the radix point: van der Corput's sequence, in [0, 1)."""
    value, weight = 0.0, 1.0
    while number:
        number, digit = divmod(number, base)
        weight /= base
        value += digit * weight
    return value


def _ask_tpe(
    space: Space, params: Mapping[int, Mapping[str, Any]], ranking: Sequence[int], seed: int
) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            seed=seed % 2**32,
            n_startup_trials=0,
            multivariate=True,
            constant_liar=True,
        )
    with quiet():
        study = optuna.create_study(sampler=sampler)
    distributions = _coordinates(space)
    ranks = {number: rank for rank, number in enumerate(ranking)}
    for number, values in sorted(params.items()):
        if values.get("backbone", space.backbones[0]) not in space.backbones:
            continue  # a trial of another coordinator, which has more backbones than this one
        study.add_trial(_told(space, values, distributions, ranks.get(number)))
    for _ in range(CANDIDATES):
        found = _plain(space, study.ask(distributions).params)
        low, high = space.lr_range(found)
        if low <= found["lr"] <= high:
            break
    return {**found, "lr": min(high, max(low, found["lr"]))}


def _coordinates(space: Space) -> dict[str, BaseDistribution]:
    scales = [(size / DEFAULT_BATCH_SIZE) ** EXPONENT for size in space.batch_sizes]
    found: dict[str, BaseDistribution] = {
        "rate": _rates(space, max(scales), min(scales)),
        "size": IntDistribution(0, len(space.batch_sizes) - 1),
    }
    if space.names_backbone or len(space.backbones) > 1:
        found["backbone"] = CategoricalDistribution(space.backbones)
    return found | {dimension.name: dimension.distribution for dimension in space.extra}


def _rates(space: Space, most: float, least: float) -> FloatDistribution:
    """Return the rates of batch size 16, where `most` and `least` are the largest and smallest factor of a batch size.

    Where optimisers are searched they are places in the range of the trial's own optimiser, so that the sampler
    compares like with like.
    """
    if not space.optimizers:
        return FloatDistribution(space.lr[0] / most, space.lr[1] / least, log=True)
    ranges = [own.lr for own in space.optimizers.values()]
    lowest = min(_position(own[0] / most, own) for own in ranges)
    return FloatDistribution(lowest, max(_position(own[1] / least, own) for own in ranges))


def _position(rate: float, lr: tuple[float, float]) -> float:
    """Return where a rate lies in a range on a log scale: from 0 to 1, and beyond where it lies outside."""
    return math.log(rate / lr[0]) / (math.log(lr[1] / lr[0]) or 1.0)


def _rate_at(position: float, lr: tuple[float, float]) -> float:
    return lr[0] * math.exp(position * (math.log(lr[1] / lr[0]) or 1.0))


def _told(
    space: Space, values: Mapping[str, Any], distributions: dict[str, BaseDistribution], rank: int | None
) -> optuna.trial.FrozenTrial:
    sizes = space.batch_sizes
    size = min(range(len(sizes)), key=lambda index: abs(math.log(sizes[index] / values["batch_size"])))
    rate = values["lr"] / (values["batch_size"] / DEFAULT_BATCH_SIZE) ** EXPONENT
    rate = _position(rate, space.lr_range(values)) if space.optimizers else rate
    bounds = distributions["rate"]
    assert isinstance(bounds, FloatDistribution)
    known: dict[str, Any] = {"rate": min(bounds.high, max(bounds.low, rate)), "size": size}
    if space.names_backbone or len(space.backbones) > 1:
        known["backbone"] = values.get("backbone", space.backbones[0])
    known |= {dimension.name: values[dimension.name] for dimension in space.extra if dimension.name in values}
    own = {name: distributions[name] for name in known}
    state = TrialState.RUNNING if rank is None else TrialState.COMPLETE
    return create_trial(state=state, value=rank, params=known, distributions=own)


def _plain(space: Space, found: Mapping[str, Any]) -> dict[str, Any]:
    batch_size = space.batch_sizes[found["size"]]
    rate = _rate_at(found["rate"], space.lr_range(found)) if space.optimizers else found["rate"]
    lr = rate * (batch_size / DEFAULT_BATCH_SIZE) ** EXPONENT
    plain = {"lr": lr, "batch_size": batch_size}
    plain |= {"backbone": found["backbone"]} if "backbone" in found else {}
    own = space.own(found.get("backbone", space.backbones[0]))
    return plain | {dimension.name: found[dimension.name] for dimension in own}
