"""Keeps the rule for unsure answers beside the model: a safetensors file with the bank, and the rest in its metadata.

One file, so that a reader finds the old rule or the new one. It may come from other people, so all of it is checked.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_pt.core.files import atomic_write, to_json
from automl_pt.core.json_reader import parse_json
from automl_pt.core.text import counted
from automl_pt.model.card import card
from automl_pt.model.directory import read_file, read_info, refuse
from automl_pt.model.info import UNSURE
from automl_pt.model.novelty import FEWEST, MAX_BANK, MAX_NUMBERS, Novelty, fit_novelty
from automl_pt.model.softmax import softmax
from automl_pt.model.unsure import Measured, UnsureRule, conformal_threshold, fewest_images, measure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from automl_pt.model.labelled import Scored

FORMAT = 1
#: the bank in half precision, and its header
MAX_BYTES = 2 * MAX_NUMBERS + 64 * 1024
_REMEDY = f"remove {UNSURE} to use the model without it, or fit another: `automl-pt evaluate MODEL DATA --calibrate`"


def fit_rule(
    directory: Path,
    scored: Scored,
    *,
    max_error: float,
    temperature: float,
    data: str,
) -> UnsureRule | None:
    """Fit a rule for the model in `directory` on its logits, labels and features of validation images.

    Writes nothing. None if there are too few images for `max_error`. The rule is measured on these images.
    """
    logits, labels, features = scored.logits, scored.labels, scored.features
    threshold = conformal_threshold(softmax(logits, temperature), labels, max_error)
    if threshold is None:
        return None
    novelty = fit_novelty(features) if features is not None and features.shape[1] else None
    weights = read_info(directory)[1].sha256
    rule = UnsureRule(weights, max_error, threshold, temperature, len(labels), data, novelty)
    return replace(rule, measured=measure(rule.answers(logits, features), logits, labels, "val"))


def without(rule: UnsureRule | None, images: int, max_error: float) -> list[str]:
    """Return notes on what `images` validation images did not suffice for."""
    if rule is None:
        needed = fewest_images(max_error)
        return [
            f"no rule for unsure answers: {counted(images, 'image')}, but a largest error of {max_error:g} needs at "
            f"least {needed}"
        ]
    if rule.novelty is None:
        return [
            "unsure answers are by probability alone: images unlike known ones need a network whose head is one linear "
            f"layer, and at least {FEWEST} images"
        ]
    return []


def save_rule(directory: Path, rule: UnsureRule) -> None:
    """Keep the rule beside the model, atomically, and state it in the model's README.md; raise OutputError."""
    from safetensors.numpy import save

    values = {name: value for name, value in vars(rule).items() if name not in ("novelty", "measured")}
    values["measured"] = None if rule.measured is None else asdict(rule.measured)
    bank = np.zeros((0, 0), np.float16)
    if rule.novelty is not None:
        values |= {"neighbour": rule.novelty.neighbour, "limit": rule.novelty.limit}
        bank = rule.novelty.bank.astype(np.float16)
    metadata = {"rule": to_json({"format": FORMAT, **values})}
    atomic_write(directory / UNSURE, save({"bank": bank}, metadata=metadata))
    atomic_write(directory / "README.md", card(read_info(directory)[0], rule))


def read_rule(directory: Path, weights: str, dimensions: int) -> UnsureRule | None:
    """Return the rule beside the model, None if there is none for the weights of this SHA-256.

    `dimensions` is the length of the network's features. Raises InvalidModelDirectoryError for a damaged file.
    """
    if not (directory / UNSURE).exists():
        return None
    content = read_file(directory, UNSURE, MAX_BYTES)
    try:
        rule = _checked(content)
        if rule.weights != weights:
            return None
        if rule.novelty is not None and rule.novelty.bank.shape[1] != dimensions:
            raise ValueError(f"features of {rule.novelty.bank.shape[1]} numbers, but the network has {dimensions}")
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        refuse(directory, f"{UNSURE} is damaged: {error}", remedy=_REMEDY)
    return rule


def _checked(content: bytes) -> UnsureRule:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    length = int.from_bytes(content[:8], "little")
    header = parse_json(content[8 : 8 + min(length, 64 * 1024)])
    values = parse_json(header["__metadata__"]["rule"].encode())
    if values.pop("format") != FORMAT:
        raise ValueError(f"another format than {FORMAT}, which this version reads")
    try:
        bank = load(content)["bank"]
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    novelty = _novelty(bank, values.pop("neighbour", None), values.pop("limit", None))
    measured = values.pop("measured")
    rule = UnsureRule(**values, novelty=novelty, measured=None if measured is None else _measured(measured))
    _check_numbers(rule)
    return rule


def _check_numbers(rule: UnsureRule) -> None:
    if not (isinstance(rule.weights, str) and isinstance(rule.data, str) and type(rule.images) is int):
        raise TypeError("weights, data or images are of another kind")
    for name, low, high in (("max_error", 0, 1), ("threshold", 0, 1), ("temperature", 1e-3, 1e3)):
        value = getattr(rule, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError(f"{name} is not a number from {low:g} to {high:g}")


def _measured(values: dict[str, Any]) -> Measured:
    found = Measured(**values)
    counts = (found.images, found.sure, found.right, found.covered, found.unlike)
    if any(type(count) is not int for count in counts) or found.images < 1 or found.split not in ("val", "test"):
        raise ValueError("the measured figures are of another kind")
    if not (0 <= found.right <= found.sure <= found.images and 0 <= found.covered <= found.images):
        raise ValueError("the measured figures contradict each other")
    return found


def _novelty(bank: NDArray[np.float16], neighbour: Any, limit: Any) -> Novelty | None:
    if limit is None:
        return None
    if bank.dtype != np.float16 or bank.ndim != 2 or not np.isfinite(bank).all():
        raise ValueError("the bank of features is not a table of finite numbers")
    if type(neighbour) is not int or not 1 <= neighbour < len(bank) <= MAX_BANK:
        raise ValueError("the neighbour that counts is not in the bank")
    if not isinstance(limit, float) or not math.isfinite(limit) or limit <= 0:
        raise ValueError("the limit of the distance is not a number above 0")
    return Novelty(bank.astype(np.float32), neighbour, limit)
