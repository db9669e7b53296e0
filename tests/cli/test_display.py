from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tiny_runs import record, write_plugin

from automl_pt.builtin.validation_metrics import BY_NAME
from automl_pt.cli.display import LineDisplay, best_epoch
from automl_pt.plugins.manager import load_plugins
from automl_pt.runs import run
from automl_pt.runs.directory import history


@pytest.mark.parametrize("settings", [{"keep": "last", "lr": 3.0}, {"ema_decay": 0.5, "lr": 1.0}])
def test_the_figures_told_at_the_end_are_those_of_the_weights_kept(
    tiny_folder: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    plugins, output = load_plugins((str(write_plugin(tmp_path)),)), tmp_path / "out"
    plain: dict[str, Any] = {
        "backbone": "tiny",
        "epochs": 6,
        "batch_size": 4,
        "threads": 1,
        "device": "cpu",
        "precision": "fp32",
    }
    list(run.train(str(tiny_folder), output=output, plugins=plugins, schedule="constant", **plain, **settings))
    best, kept = best_epoch(history(output)), json.loads((output / "model.json").read_text())["metrics"]
    assert best is not None
    assert best.val_loss != kept["val_loss"]  # else nothing is shown by what follows
    console = Console(file=io.StringIO(), soft_wrap=True)
    LineDisplay(console).ended(output, record(output), history(output))
    told = console.file.getvalue()  # type: ignore[attr-defined]
    loss = BY_NAME["loss"].text(kept["val_loss"])
    accuracy = f"{100 * kept['val_accuracy']:.1f} %"
    assert f"epoch {kept['epoch']}, val loss {loss}, val accuracy {accuracy}" in told
    assert ("moving average" in told) == (kept["weights"] == "ema") == ("ema_decay" in settings)
