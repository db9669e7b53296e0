"""A temperature that calibrates a model's probabilities, stored beside the model.

Logits are divided by it before the softmax. It is fitted on validation images by the lowest cross-entropy, as in Guo,
Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017. No prediction changes.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_pt.core.files import write_json
from automl_pt.core.json_reader import parse_json
from automl_pt.model.directory import read_file, read_info, refuse
from automl_pt.model.info import TEMPERATURE

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = 1
MAX_BYTES = 64 * 1024
#: limits of a plausible temperature
LOWEST, HIGHEST = 0.01, 100.0
#: a temperature with a larger factor of uncertainty is not stored
FACTOR = 2.0
_REMEDY = (
    f"remove {TEMPERATURE} to use the model without it, or fit another: `automl-pt evaluate MODEL DATA --calibrate`"
)


@dataclass(frozen=True)
class Temperature:
    """A temperature, the SHA-256 of the weights it was fitted for, and its effect on the `images` it was fitted on.

    `loss` is the mean cross-entropy and `ece` the expected calibration error, each before and after.
    """

    temperature: float
    weights: str
    images: int
    data: str
    loss: tuple[float, float]
    ece: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return asdict(self)


def fit(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the temperature with the lowest cross-entropy of logits float32[N, C] for labels int64[N].

    The cross-entropy is convex in its inverse, so the optimum is unique. It would be 0 if every image is right, and
    infinite if every image is wrong, so the result is limited to `LOWEST` and `HIGHEST`.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    values = logits.astype(np.float64)

    def loss(log_inverse: float) -> float:
        return float(-log_softmax(values * math.exp(log_inverse), axis=1)[np.arange(len(labels)), labels].mean())

    found = minimize_scalar(
        loss, bounds=(-math.log(HIGHEST), -math.log(LOWEST)), method="bounded", options={"xatol": 1e-6}
    )
    return min(max(math.exp(-found.x), LOWEST), HIGHEST)


def uncertain(logits: NDArray[np.float32], labels: NDArray[np.int64], temperature: float) -> str | None:
    """Return why these images do not determine the temperature; None if they do.

    They do not if all predictions are right, or all wrong, because the loss then has no minimum, or if they are so few
    that twice the standard error of the temperature's logarithm, by the Fisher information at the temperature found, is
    more than a factor of `FACTOR`.
    """
    from scipy.special import softmax

    right = logits.argmax(axis=1) == labels
    images, wrong = f"{len(labels)} image{'' if len(labels) == 1 else 's'}", int((~right).sum())
    if wrong in (0, len(labels)):
        return f"none of {images} is {'right' if wrong else 'wrong'}, so they do not determine a temperature"
    scaled = logits.astype(np.float64) / temperature
    shares = softmax(scaled, axis=1)
    information = float(((shares * scaled**2).sum(axis=1) - (shares * scaled).sum(axis=1) ** 2).sum())
    if information <= 0 or 2 / math.sqrt(information) > math.log(FACTOR):
        return f"{images}, {wrong} of them wrong, do not determine it within a factor of {FACTOR:g}; more images may"
    return None


def calibrated(directory: Path, logits: NDArray[np.float32], labels: NDArray[np.int64], data: str) -> Temperature:
    """Fit a temperature for the model in `directory` on its logits float32[N, C] for labels int64[N]; write nothing."""
    from automl_pt.model.calibration import calibrate
    from automl_pt.model.scoring import cross_entropy

    temperature = fit(logits, labels)
    both = (logits, (logits / np.float32(temperature)).astype(np.float32))
    before, after = ((cross_entropy(one, labels), calibrate(one, labels).ece) for one in both)
    weights = read_info(directory)[1].sha256
    return Temperature(temperature, weights, len(labels), data, (before[0], after[0]), (before[1], after[1]))


def save_temperature(directory: Path, found: Temperature) -> None:
    """Store a temperature beside the model, atomically; raise OutputError."""
    write_json(directory / TEMPERATURE, {"format": FORMAT, **found.to_dict()})


def read_temperature(directory: Path, weights: str) -> Temperature | None:
    """Return the temperature beside the model, None if there is none for the weights of this SHA-256.

    One that was fitted for other weights is ignored. Raises InvalidModelDirectoryError for a damaged file.
    """
    if not (directory / TEMPERATURE).exists():
        return None
    text = read_file(directory, TEMPERATURE, MAX_BYTES)
    try:
        found = _checked(parse_json(text))
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        refuse(directory, f"{TEMPERATURE} is damaged: {error}", remedy=_REMEDY)
    return found if found.weights == weights else None


def _checked(values: Any) -> Temperature:
    if values["format"] != FORMAT:
        raise ValueError(f"format {values['format']!r}, this version reads {FORMAT}")
    loss, ece = (tuple(values[name]) for name in ("loss", "ece"))
    found = Temperature(values["temperature"], values["weights"], values["images"], values["data"], loss, ece)
    if not all(_is_number(value) for value in (found.temperature, *loss, *ece)) or len(loss) != 2 or len(ece) != 2:
        raise ValueError("a figure is not a number")
    if not LOWEST <= found.temperature <= HIGHEST:
        raise ValueError(f"a temperature of {found.temperature:g}, not from {LOWEST:g} to {HIGHEST:g}")
    if type(found.images) is not int or not isinstance(found.weights, str) or not isinstance(found.data, str):
        raise ValueError("images, weights or data are of another kind")
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
