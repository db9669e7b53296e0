"""Describes the extras of a study in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from automl_pt.core.text import printable, shown_path

#: a difference with a p-value below this is called clear
SIGNIFICANT = 0.05


def extras_lines(made: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Describe the results and cost of the extras, one line each.

    `made` is the field of StudyResult.
    """
    return [line for name in _SAY if name in made for line in _said(name, made[name])]


def _said(name: str, found: Mapping[str, Any]) -> list[str]:
    try:
        return list(_SAY[name](found))
    except (KeyError, TypeError, ValueError):  # users may have edited the file
        return [f"{name}: made.json is damaged; remove it and run the search's command again, which makes it again"]


def _ensemble(found: Mapping[str, Any]) -> Iterator[str]:
    if found["model"] is None:
        yield "ensemble: none, because only one trial has weights; keep more with --keep-models"
        return
    yield (
        f"ensemble of trials {_listed(found['members'])}: {_gained(found)}; predicts {found['times_slower']:.1f} times "
        f"as long ({found['ms_per_image']:.2f} ms an image){_test(found)}: {shown_path(found['model'])}"
    )


def _average(found: Mapping[str, Any]) -> Iterator[str]:
    if not found["kept"]:
        tried = f"with trials {_listed(found['tried'])}" if found["tried"] else "no other trial has weights"
        yield f"average of weights: not kept, the validation loss does not fall ({tried})"
        return
    yield (
        f"average of the weights of trials {_listed(found['members'])}: {_gained(found)}; batch-norm statistics "
        f"{found['batch_norm']}{_test(found)}: {shown_path(found['model'])}"
    )


def _refit(found: Mapping[str, Any]) -> Iterator[str]:
    if found["model"] is None:
        yield f"refit: diverged in epoch {found['epochs']}; nothing was kept"
        return
    yield (
        f"refit of trial {found['trial']} on training and validation images, {found['epochs']} epochs: its quality on "
        f"new images {'is measured by the test split only' + _test(found) if found['test'] else 'is unknown'}: "
        f"{shown_path(found['model'])}"
    )


def _folds(found: Mapping[str, Any]) -> Iterator[str]:
    done, count = len(found["folds"]), found["count"]
    which = f"{count} folds" if done == count else f"{done} of {count} folds"
    kept = ", whole groups in one fold" if found["grouped"] else ""
    for number, why in found["failed"].items():
        yield f"fold {number} failed, and the same command tries it again: {printable(why)}"
    if found["model"] is None:
        yield f"folds: {which} ended, too few for an interval"
        return
    low, high = found["interval"]
    each = ", ".join(f"{100 * one['accuracy']:.1f}" for one in found["folds"])
    yield (
        f"folds: accuracy {100 * found['accuracy']:.1f} % over {which}{kept} (95 % interval {100 * low:.1f} to "
        f"{100 * high:.1f} %; {found['method']}); by fold {each} %"
    )
    yield (
        f"model of the folds: the mean of {done} networks, predicts about {found['times_slower']} times as long"
        f"{_test(found)}: {shown_path(found['model'])}"
    )


def _earlier(found: Mapping[str, Any]) -> Iterator[str]:
    name, images = printable(found["study"]), f"{found['images']} {found['split']} images"
    if found["accuracy"] is None:
        yield f"compared with {name}: no {found['split']} image is new to its model"
        return
    tied = found["p_value"] >= SIGNIFICANT
    better = "better" if found["accuracy_difference"] > 0 else "worse"
    why = ", because its model was trained on them" if found["trained_on"] else ""
    less = f"; {found['trained_on']} others do not count{why}" if why else ""
    chosen = "; the new model was chosen by them" if found["split"] == "val" else ""
    yield (
        f"compared with {name} on {images} that neither model was trained on: accuracy {100 * found['accuracy']:.1f} % "
        f"against {100 * found['earlier_accuracy']:.1f} %, {'statistically tied' if tied else f'clearly {better}'} "
        f"(only the new one is right on {found['only_first_right']}, only the old one on {found['only_second_right']}; "
        f"McNemar's exact p = {found['p_value']:.2g}){less}{chosen}"
    )


def _gained(found: Mapping[str, Any]) -> str:
    error = found["loss_standard_error"]
    spread = "" if error is None else f" +- {error:.4f}"
    verdict = "statistically tied" if found["inside_noise"] else "beyond the noise"
    return (
        f"val loss {found['val_loss']:.4f}, below the best trial's by {found['loss_gain']:+.4f}{spread}, {verdict}; "
        f"val accuracy {found['val_accuracy']:.4f} ({found['accuracy_gain']:+.4f})"
    )


def _test(found: Mapping[str, Any]) -> str:
    figures = found["test"]
    return "" if not figures else "; test: " + ", ".join(f"{name} {value:.4f}" for name, value in figures.items())


_SAY = {"earlier": _earlier, "folds": _folds, "ensemble": _ensemble, "average": _average, "refit": _refit}


def _listed(numbers: list[int]) -> str:
    return ", ".join(str(number) for number in numbers)
