"""Calls for a type checker, which reads this file; nothing runs it. An error that it does not find is one, too."""

from __future__ import annotations

from pathlib import Path

from automl_pt import EpochResult, Model, StudyResult, load_model, search, train


def right(folder: Path) -> tuple[StudyResult, list[EpochResult], Model]:
    """Settings of the right name and type."""
    weights = {"cat": 2.0, "dog": 1.0}
    result = search(
        folder, backbones=["resnet18"], lr=(1e-4, 1.0), trials=4, search={"momentum": [0.5, 0.9]}, show=False
    )
    epochs = list(train("digits", epochs=3, weights=folder / "a.pth", class_weights=weights, head="probe"))
    return result, epochs, load_model("runs/first")


def wrong() -> None:
    """Misspelt names, and values of another type."""
    train("digits", epoch=3)  # type: ignore[call-arg]  # misspelt
    search("digits", trails=3)  # type: ignore[call-arg]  # misspelt
    search("digits", backbone="resnet18")  # type: ignore[call-arg]  # of a run
    train("digits", epochs="3")  # type: ignore[arg-type]  # a text
    train("digits", schedule="linear")  # type: ignore[arg-type]  # not one of the choices
    search("digits", lr=0.1)  # type: ignore[arg-type]  # not a range
