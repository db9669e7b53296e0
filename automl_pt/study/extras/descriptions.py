"""What was made of ended trials beside the best one's model, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def extras_lines(made: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say what a refit, an ensemble and an average gave and cost, one line each; the search's own model stands beside.

    `made` is the field of StudyResult.
    """
    return [line for name in _SAY if name in made for line in _said(name, made[name])]


def _said(name: str, found: Mapping[str, Any]) -> list[str]:
    try:
        return list(_SAY[name](found))
    except (KeyError, TypeError, ValueError):  # the file is for people to read, and some people edit
        return [
            f"{name}: made.json does not hold what it was written with; remove it and run the search's command again, "
            "which makes it anew"
        ]


def _ensemble(found: Mapping[str, Any]) -> Iterator[str]:
    if found["model"] is None:
        yield "ensemble: none, for the weights of one trial alone are there; keep more with --keep-models"
        return
    yield (
        f"ensemble of trials {_listed(found['members'])}: {_gained(found)}; predicts {found['times_slower']:.1f} times "
        f"as long ({found['ms_per_image']:.2f} ms an image){_test(found)}: {found['model']}"
    )


def _average(found: Mapping[str, Any]) -> Iterator[str]:
    if not found["kept"]:
        tried = f"with trials {_listed(found['tried'])}" if found["tried"] else "no other trial's weights are there"
        yield f"average of weights: not kept, the validation loss does not fall ({tried})"
        return
    yield (
        f"average of the weights of trials {_listed(found['members'])}: {_gained(found)}; batch-norm statistics "
        f"{found['batch_norm']}{_test(found)}: {found['model']}"
    )


def _refit(found: Mapping[str, Any]) -> Iterator[str]:
    if found["model"] is None:
        yield f"refit: diverged in epoch {found['epochs']}; nothing was kept of it"
        return
    yield (
        f"refit of trial {found['trial']} on training and validation images, {found['epochs']} epochs: how good it is "
        f"on new images {'the test split alone can say' + _test(found) if found['test'] else 'nothing here can say'}: "
        f"{found['model']}"
    )


def _gained(found: Mapping[str, Any]) -> str:
    error = found["loss_standard_error"]
    spread = "" if error is None else f" +- {error:.4f}"
    verdict = "inside the noise" if found["inside_noise"] else "outside the noise"
    return (
        f"val loss {found['val_loss']:.4f}, the best trial's less it {found['loss_gain']:+.4f}{spread}, {verdict}; "
        f"val accuracy {found['val_accuracy']:.4f} ({found['accuracy_gain']:+.4f})"
    )


def _test(found: Mapping[str, Any]) -> str:
    figures = found["test"]
    return "" if not figures else "; test: " + ", ".join(f"{name} {value:.4f}" for name, value in figures.items())


_SAY = {"ensemble": _ensemble, "average": _average, "refit": _refit}


def _listed(numbers: list[int]) -> str:
    return ", ".join(str(number) for number in numbers)
