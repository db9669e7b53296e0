"""Smooth pictures of measured trials: the final log loss of one set as a function of learning rate and batch size.

A Gaussian process (Matern 5/2, a length for each of two axes, white noise) is fitted to the log of the kept validation
losses of `search_curves.py`, pooled over the seeds of a set. A loss above that of guessing by chance counts as that.
The axes are `log10 lr - shear * log10(batch_size / 16)` and `log2 batch_size`: with shear 0 the plain pair, 1/2 the
square root rule, 1 the rate per batch. The shear is that of the highest marginal likelihood among SHEARS, so that no
coordinates are favoured beforehand.
"""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import dataclass

import numpy as np
import record
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Kernel, Matern, WhiteKernel

CURVES = record.RESULTS / "search_curves.json"
SHEARS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
#: what the product offers for 320 images and more: an epoch has at least four steps
SIZES = (8, 16, 32, 64)
LR = (1e-4, 1.0)
GRID = np.linspace(math.log10(LR[0]), math.log10(LR[1]), 401)
RESAMPLINGS = 200
CLASSES = {"digits": 10, "fashion": 10, "trashnet": 6}


@dataclass(frozen=True)
class Trials:
    """The measured trials of one set and number of epochs: rows of (log10 lr, log2 batch size), and log losses."""

    points: np.ndarray
    losses: np.ndarray
    defaults: list[int]

    def resampled(self, rng: np.random.Generator) -> Trials:
        rows = rng.integers(0, len(self.losses), len(self.losses))
        return Trials(self.points[rows], self.losses[rows], [])


@dataclass(frozen=True)
class Surrogate:
    """The fitted picture: its process, its shear, and log losses on GRID for each of SIZES."""

    process: GaussianProcessRegressor
    shear: float
    table: np.ndarray

    def log_loss(self, lr: float, batch_size: int) -> float:
        return float(np.interp(math.log10(lr), GRID, self.table[SIZES.index(batch_size)]))

    @property
    def best(self) -> float:
        return float(self.table.min())

    @property
    def noise(self) -> float:
        """The standard deviation of the white noise, in log loss."""
        return float(np.sqrt(self.process.kernel_.k2.noise_level) * self.process._y_train_std)

    def best_rates(self) -> np.ndarray:
        """The log10 of the best learning rate, for each of SIZES."""
        return GRID[self.table.argmin(axis=1)]

    def slope(self) -> float:
        """By which power of the batch size the best learning rate grows (least squares over SIZES)."""
        return float(np.polyfit(np.log10(SIZES), self.best_rates(), 1)[0])


def measured() -> dict[str, Trials]:
    """Read the trials, by set and epochs; all have a finite loss."""
    if not CURVES.exists():
        raise SystemExit(f"no curves at {CURVES}: measure them with search_curves.py first")
    rows: dict[str, list[tuple[float, float, float]]] = {}
    for key, study in sorted(json.loads(CURVES.read_text()).items()):
        name, _, epochs = key.split("-")
        if name not in CLASSES:  # more images, another network or another recipe
            continue
        for trial in study["trials"]:
            kept = min(loss for loss in trial["raw"] if loss is not None)
            rows.setdefault(f"{name}-{epochs}", []).append(
                (
                    math.log10(trial["lr"]),
                    math.log2(trial["batch_size"]),
                    min(math.log(kept), math.log(math.log(CLASSES[name]))),
                )
            )
    found = {}
    for name, values in rows.items():
        table = np.array(values)
        defaults = [row for row, (lr, size, _) in enumerate(values) if abs(lr + 3) < 1e-9 and size == 4]
        found[name] = Trials(table[:, :2], table[:, 2], defaults)
    return found


def sheared(points: np.ndarray, shear: float) -> np.ndarray:
    return np.column_stack([points[:, 0] - shear * math.log10(2) * (points[:, 1] - 4), points[:, 1]])


def fit(trials: Trials, shear: float, kernel: Kernel | None = None) -> GaussianProcessRegressor:
    """Fit the process; with a kernel given, keep its parameters."""
    start = ConstantKernel(1.0, (0.05, 50.0)) * Matern((1.0, 3.0), ((0.2, 10.0), (0.7, 50.0)), nu=2.5)
    fixed = kernel is not None
    process = GaussianProcessRegressor(
        kernel if fixed else start + WhiteKernel(0.05, (1e-4, 1.0)),
        optimizer=None if fixed else "fmin_l_bfgs_b",
        normalize_y=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a length at its bound: the loss does not depend on it
        return process.fit(sheared(trials.points, shear), trials.losses)


def picture(process: GaussianProcessRegressor, shear: float) -> Surrogate:
    grid = np.array([(lr, math.log2(size)) for size in SIZES for lr in GRID])
    return Surrogate(process, shear, process.predict(sheared(grid, shear)).reshape(len(SIZES), len(GRID)))


def surrogate(trials: Trials) -> tuple[Surrogate, dict[str, float]]:
    """Return the picture of the likeliest shear, and the log marginal likelihood of each."""
    processes = {shear: fit(trials, shear) for shear in SHEARS}
    likelihoods = {shear: float(one.log_marginal_likelihood_value_) for shear, one in processes.items()}
    shear = max(likelihoods, key=lambda one: likelihoods[one])
    return picture(processes[shear], shear), {str(one): round(value, 2) for one, value in likelihoods.items()}


def left_out(process: GaussianProcessRegressor) -> np.ndarray:
    """Return the error of each trial's log loss as told by all others, the kernel's parameters kept."""
    inverse = np.linalg.inv(process.kernel_(process.X_train_))
    return inverse @ process.y_train_ / np.diag(inverse) * process._y_train_std


def slopes(trials: Trials, found: Surrogate, seed: int) -> np.ndarray:
    """Return the slope in resampled trials: shear chosen anew, the kernel's other parameters kept."""
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(RESAMPLINGS):
        drawn = trials.resampled(rng)
        processes = [(fit(drawn, shear, found.process.kernel_), shear) for shear in SHEARS]
        best = max(processes, key=lambda one: one[0].log_marginal_likelihood_value_)
        values.append(picture(*best).slope())
    return np.array(values)


def describe(trials: Trials, found: Surrogate, likelihoods: dict[str, float]) -> dict[str, object]:
    """Tell how good the picture is, and how its best learning rate depends on the batch size."""
    errors, good = left_out(found.process), trials.losses <= np.quantile(trials.losses, 1 / 3)
    low, middle, high = np.quantile(slopes(trials, found, 1), [0.05, 0.5, 0.95])
    rates, sizes = found.best_rates(), np.log10(np.array(SIZES) / 16)
    return {
        "trials": len(trials.losses),
        "spread": round(float(trials.losses.std()), 3),
        "left_out": round(float(np.sqrt((errors**2).mean())), 3),
        "spread_best_third": round(float(trials.losses[good].std()), 3),
        "left_out_best_third": round(float(np.sqrt((errors[good] ** 2).mean())), 3),
        "noise": round(found.noise, 3),
        "spread_of_trial_0": round(float(trials.losses[trials.defaults].std(ddof=1)), 3),
        "kernel": str(found.process.kernel_),
        "least_loss": round(math.exp(found.best), 4),
        "shear": found.shear,
        "log_likelihood_by_shear": likelihoods,
        "best_lr_by_size": {str(size): float(f"{10**rate:.2g}") for size, rate in zip(SIZES, rates, strict=True)},
        "least_loss_by_size": [round(float(loss), 3) for loss in np.exp(found.table.min(axis=1))],
        "slope": round(found.slope(), 2),
        "slope_interval": [round(float(low), 2), round(float(middle), 2), round(float(high), 2)],
        "decades_of_best_rate": {
            name: round(float(np.ptp(rates - power * sizes)), 2)
            for name, power in (("plain", 0), ("square root", 0.5), ("per batch", 1))
        },
    }
