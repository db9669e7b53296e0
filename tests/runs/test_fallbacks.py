"""A fast path that fails leaves a note in run.json, in the notices of a search and in the report, and the run ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import write_folder
from test_graph import run_again
from tiny_runs import record, write_plugin

from automl_pt.plugins.manager import load_plugins
from automl_pt.reporting.run import read_run
from automl_pt.reporting.sections.repeat import run_repeat
from automl_pt.runs import run, setup
from automl_pt.training import sgd, state
from automl_pt.training.cuda.compile import CompiledStep
from automl_pt.training.cuda.graph import GraphedStep


def broken(*given: Any, **options: Any) -> Any:
    raise RuntimeError("this fails for the test")


def does_not_record(step: Any, loader: Any, config: Any) -> tuple[Any, bool]:
    return GraphedStep(step, config.batch_size, broken), False


def replays_nothing(step: Any, loader: Any, config: Any) -> tuple[Any, bool]:
    return GraphedStep(step, config.batch_size, lambda work: lambda: None), False


def does_not_compile(step: Any, loader: Any, config: Any) -> tuple[Any, bool]:
    record = lambda: GraphedStep(step, config.batch_size, run_again)  # noqa: E731
    return CompiledStep(step, config.batch_size, record, compiler=broken), False


def runs_out(step: Any, loader: Any, config: Any) -> tuple[Any, bool]:
    plain = step.model.forward

    def forward(images: torch.Tensor) -> torch.Tensor:
        if len(images) > 2 and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        logits: torch.Tensor = plain(images)
        return logits

    step.model.forward = forward
    return step, False


def has_no_fused_kernel(step: Any, loader: Any, config: Any) -> tuple[Any, bool]:
    """Stand for a device without the kernel, as MPS in some versions."""
    fused, torch._fused_sgd_ = torch._fused_sgd_, broken
    sgd.fused_kernel_fails.cache_clear()
    try:
        step.__init__(step.model, config, device=step.device, precision=step.precision)
    finally:
        torch._fused_sgd_ = fused
        sgd.fused_kernel_fails.cache_clear()
    return step, False


@pytest.mark.parametrize(
    ("failing", "note"),
    [
        (
            has_no_fused_kernel,
            "weights are updated by single operations, not by PyTorch's fused kernel: this fails for the test",
        ),
        (does_not_record, "steps are not recorded as a CUDA graph but run one by one: this fails for the test"),
        (replays_nothing, "steps are not recorded as a CUDA graph but run one by one: a replay gives the loss nan"),
        (does_not_compile, "the network is not compiled: RuntimeError"),
        (runs_out, "out of memory with 4 images at once; continuing with 2"),
    ],
)
def test_a_fast_path_may_fail_and_the_run_may_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: Any, note: str
) -> None:
    monkeypatch.setattr(state, "make_step_fn", failing)
    data, output = write_folder(tmp_path / "data", {"train": 8, "val": 4}), tmp_path / "out"
    monkeypatch.setenv("AUTOML_PT_CACHE", str(tmp_path / "cache"))
    plugins = load_plugins((str(write_plugin(tmp_path)),))
    options = {"backbone": "tiny", "epochs": 2, "batch_size": 4, "threads": 1, "device": "cpu"}
    results = list(run.train(str(data), output=output, plugins=plugins, **options))
    assert results[-1].reason == "completed"
    told = [said for result in results for said in result.notes if said.startswith(note)]
    assert len(told) == 1
    assert [said for said in record(output)["notes"] if said.startswith(note)] == told
    facts = run_repeat(read_run(output))["facts"]
    assert ("done differently", told[0]) in facts


@pytest.mark.parametrize(
    ("asked", "note"),
    [
        ({"precision": "bf16"}, "the run computes in fp32, because this cpu device has no bf16"),
        ({"compile": "always"}, "the network is not compiled: on cpu that gains nothing"),
    ],
)
def test_what_a_device_does_not_do_is_noted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, str], note: str
) -> None:
    monkeypatch.setattr(setup, "choose_precision", lambda name, device: "fp32")  # as on MPS before macOS 14
    data = write_folder(tmp_path / "data", {"train": 8, "val": 4})
    monkeypatch.setenv("AUTOML_PT_CACHE", str(tmp_path / "cache"))
    plugins = load_plugins((str(write_plugin(tmp_path)),))
    options = {"backbone": "tiny", "epochs": 2, "batch_size": 4, "threads": 1, "device": "cpu", **asked}
    results = list(run.train(str(data), output=tmp_path / "out", plugins=plugins, **options))
    assert [said for result in results for said in result.notes].count(note) == 1
    assert record(tmp_path / "out")["notes"].count(note) == 1
    assert record(tmp_path / "out")["precision"] == "fp32"


def test_a_gpu_out_of_reach_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "gpu_out_of_reach", lambda: "the driver is too old")
    data = write_folder(tmp_path / "data", {"train": 8, "val": 4})
    monkeypatch.setenv("AUTOML_PT_CACHE", str(tmp_path / "cache"))
    plugins = load_plugins((str(write_plugin(tmp_path)),))
    options = {"backbone": "tiny", "epochs": 1, "batch_size": 4, "threads": 1, "device": "auto", "precision": "fp32"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    list(run.train(str(data), output=tmp_path / "out", plugins=plugins, **options))
    assert "the run uses the CPU: the driver is too old" in record(tmp_path / "out")["notes"]
