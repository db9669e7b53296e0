"""Proxy runs of one process share a network that was built once, and none sees what another did to it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_folder
from test_graph import run_again
from tiny_runs import write_plugin
from torch import Tensor, nn

from automl_pt.backbones.build import build_model
from automl_pt.backbones.description import are_alike, description
from automl_pt.config import TrainConfig
from automl_pt.core.out_of_memory import Recording
from automl_pt.data import loader
from automl_pt.data.prepare import Data, prepare
from automl_pt.plugins.manager import Plugins, load_plugins
from automl_pt.runs import network
from automl_pt.runs.network import forget
from automl_pt.runs.setup import new_training
from automl_pt.study.executor.base import TrialSpec
from automl_pt.study.proxy_run import proxy_runs
from automl_pt.training import step
from automl_pt.training.cuda import graph
from automl_pt.training.cuda.graph import CudaCapture

CPU = torch.device("cpu")


@dataclass
class Worker:
    """A process that makes proxy runs and runs of one data set, and counts what they cost."""

    config: TrainConfig
    data: Data
    plugins: Plugins
    device: torch.device = CPU
    counts: dict[str, int] = field(default_factory=lambda: {"built": 0, "rehearsed": 0, "recorded": 0, "probed": 0})

    def proxy(self, **changes: Any) -> float:
        config = self.config.model_copy(update=changes)
        config = config.model_copy(update={"device": str(self.device)})
        spec = TrialSpec(0, config, Path("none"), 0.5, Path("none"), (0.5,))
        [found] = proxy_runs(spec, lambda: False, self.data, self.plugins)
        return found.rank_loss

    def run(self, **changes: Any) -> dict[str, Tensor]:
        config = self.config.model_copy(update=changes)
        backbone = self.plugins.backbone(config.backbone, ())
        config = config.model_copy(update={"device": str(self.device)})
        ours = new_training(config, self.data, backbone, self.device, "fp32", plugins=self.plugins)
        ours.train_epoch(lambda done, batches: False, lambda: None)
        return {name: value.clone() for name, value in ours.model.state_dict().items()}

    def counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any, **options: Any) -> Any:
            self.counts[name] += 1
            return function(*given, **options)

        return called


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    plugins = load_plugins((str(write_plugin(tmp_path)),))
    config = TrainConfig(
        dataset=str(write_folder(tmp_path / "data", {"train": 10, "val": 4})),
        backbone="tiny",
        batch_size=4,
        pretrained=False,
        precision="fp32",
        device="cpu",
        cache_dir=str(tmp_path / "cache"),
    )
    ours = Worker(config, prepare(config, plugins), plugins)
    for name, module, function in (
        ("built", network, "build_model"),
        ("rehearsed", network, "rehearse"),
        ("probed", step, "make_optimizer"),
    ):
        monkeypatch.setattr(module, function, ours.counted(name, getattr(module, function)))
    forget()
    yield ours
    forget()


def kept_on_the_device(images: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """Stand for the upload to a GPU."""
    array = np.asarray(images[np.arange(len(images.rows))])
    return torch.from_numpy(array).permute(0, 2, 3, 1).contiguous(), torch.arange(len(array))


def record(worker: Worker, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Record steps on a GPU, or on a CPU as if it were one."""
    worker.device = torch.device(device)
    monkeypatch.setattr(Recording, "replaceable", True)  # for PyTorch before 2.12
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    if worker.device.type == "cuda":
        monkeypatch.setattr(CudaCapture, "__call__", worker.counted("recorded", CudaCapture.__call__))
        return
    monkeypatch.setattr(step, "why_not", lambda step: None)
    monkeypatch.setattr(loader, "upload", kept_on_the_device)
    monkeypatch.setattr(graph, "CudaCapture", lambda device: worker.counted("recorded", run_again))


@pytest.mark.parametrize("recorded", [None, "cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])
def test_proxy_runs_with_one_network_rank_as_with_a_new_one_each(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, recorded: str | None
) -> None:
    if recorded is not None:
        record(worker, recorded, monkeypatch)
    trials: list[dict[str, Any]] = [
        {"seed": 1, "lr": 0.1},
        {"seed": 1, "lr": 0.1},
        {"seed": 2, "lr": 0.02, "augment": "none"},
        {"seed": 3, "lr": 0.3},
    ]
    expected, last = [], {}
    for trial in trials:
        forget()
        expected.append(worker.proxy(**trial))
    forget()
    last = worker.run(**trials[-1])
    before = dict(worker.counts)
    assert before["rehearsed"] == 5
    forget()
    found = [worker.proxy(**trial) for trial in trials]
    again = worker.run(**trials[-1])
    assert found == expected
    assert len(set(found)) == 3
    assert all(value.equal(last[name]) for name, value in again.items())
    new = {name: count - before[name] for name, count in worker.counts.items()}
    # batches of 4 and 2 are each recorded once, not once for each training
    assert new == {"built": 3, "rehearsed": 1, "probed": 1, "recorded": 0 if recorded is None else 2}
    assert network._LEFT == {}  # the run took it over


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 3},
        {"momentum": 0.5},
        {"clip_grad_norm": 0.1},
        {"augmentation": "mixup"},
        {"sampling": "balanced"},
        {"objective": "accuracy"},
        {"freeze_groups": 1},
        {"deterministic": True},
    ],
)
def test_other_settings_have_a_network_of_their_own(worker: Worker, changes: dict[str, Any]) -> None:
    worker.proxy()
    worker.proxy(**changes)
    assert worker.counts["rehearsed"] == 2
    worker.proxy(seed=5)  # one network at most is kept
    assert worker.counts["rehearsed"] == 3
    torch.use_deterministic_algorithms(False)


def test_a_run_leaves_no_network(worker: Worker) -> None:
    worker.run()
    worker.run()
    assert worker.counts["rehearsed"] == 2


def test_an_optimiser_of_a_library_begins_anew_on_the_same_network(worker: Worker) -> None:
    expected = worker.proxy(optimizer="adamw", seed=2)
    forget()
    worker.proxy(optimizer="adamw", seed=1)
    assert worker.proxy(optimizer="adamw", seed=2) == expected
    assert worker.counts == {"built": 3, "rehearsed": 2, "probed": 3, "recorded": 0}


def test_a_step_that_was_cut_is_not_taken_over(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    begin, left = step.Step._backward, [1]

    def once(self: Any, images: Tensor, labels: Tensor) -> Tensor:
        if left:
            left.clear()
            raise torch.OutOfMemoryError("CUDA out of memory")
        return begin(self, images, labels)

    monkeypatch.setattr(step.Step, "_backward", once)
    worker.proxy()
    assert worker.proxy(seed=2) == worker.proxy(seed=2)
    assert (worker.counts["rehearsed"], worker.counts["probed"]) == (1, 2)


def test_a_proxy_run_that_fails_leaves_nothing(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Any, images: Tensor, labels: Tensor) -> Tensor:
        raise RuntimeError("this fails for the test")

    monkeypatch.setattr(step.Step, "_backward", fails)
    with pytest.raises(RuntimeError):
        worker.proxy()
    assert network._LEFT == {}


class Counting(nn.Module):
    """Has a state that no tensor shows: the later passes give other results."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.passes = inner, 0

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        logits: Tensor = self.inner(images) / self.passes
        return logits


def drawn(model: nn.Module) -> nn.Module:
    model.strength = random.random()  # type: ignore[assignment]  # as stochastic depth that is drawn when it is built
    return model


def unregistered(model: nn.Module) -> nn.Module:
    model.mask = [torch.rand(2)]  # type: ignore[assignment]
    return model


@pytest.mark.parametrize("made", [Counting, drawn, unregistered])
def test_a_network_that_differs_in_more_than_its_tensors_is_not_used_again(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, made: Callable[[nn.Module], nn.Module]
) -> None:
    build = network.build_model

    def wrapped(*given: Any, **options: Any) -> nn.Module:
        return made(build(*given, **options))

    monkeypatch.setattr(network, "build_model", wrapped)
    expected = worker.proxy(seed=2)
    forget()
    worker.proxy(seed=1)
    assert worker.proxy(seed=2) == expected
    assert worker.counts["rehearsed"] == 3


@pytest.mark.parametrize("name", ["resnet18", "timm/convnext_atto", "timm/test_vit"])
def test_networks_of_one_builder_have_one_description(name: str) -> None:
    plugins = load_plugins()
    backbone = plugins.backbone(name)
    assert are_alike(backbone, plugins.backbone(name))
    assert not are_alike(backbone, plugins.backbone("resnet34"))
    first, second = (build_model(backbone, 3, backbone.image_size, seed=seed, prove=False) for seed in (1, 2))
    assert description(first) == description(second) is not None
    assert description(build_model(backbone, 4, backbone.image_size, seed=1, prove=False)) != description(first)
    next(first.parameters()).requires_grad_(False)
    assert description(first) != description(second)
