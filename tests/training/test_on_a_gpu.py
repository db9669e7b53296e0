"""What only a GPU can show of the training. The same bodies run on the CPU by default, so that they are known to work.

`pytest -m gpu` runs them on a GPU. Recordings are real there; on the CPU the same static tensors stand for them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_graph import run_again
from test_trainer import MEAN, STD, network, pixels, settings
from torch import Tensor, nn
from torch.nn import functional as F

from automl_pt.core.errors import ConfigError
from automl_pt.core.out_of_memory import Recording
from automl_pt.data.device_split import StreamedSplit
from automl_pt.data.loader import Loader
from automl_pt.dataset import Hints
from automl_pt.images.preprocessing import scale_and_offset
from automl_pt.training.checkpoint import Checkpoints
from automl_pt.training.cuda.graph import CudaCapture, GraphedStep
from automl_pt.training.device import prepare_device
from automl_pt.training.evaluation import autocast
from automl_pt.training.layout import arrange, has_channels_last
from automl_pt.training.loop import Training, train
from automl_pt.training.rehearsal import rehearse

#: several tests run on both: the CPU by default, the GPU with `-m gpu`
BOTH = pytest.mark.parametrize("name", ["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])


@pytest.fixture(autouse=True)
def as_in_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Recording, "replaceable", True)  # for PyTorch before 2.12
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


def training(
    device: torch.device, *, precision: Any = "fp32", dropout: float = 0.0, streamed: bool = False, **changes: Any
) -> Training:
    """Return a training on a device, as a run sets it up, with recorded steps unless `cuda_graph` is false."""
    config, layout = settings(augment="early", **changes), has_channels_last(device, precision)
    shared: dict[str, Any] = {"mean": MEAN, "std": STD, "seed": 1, "device": device, "hints": Hints()}
    loader = Loader(pixels(23), batch_size=4, augmented_epochs=9, shuffle=True, channels_last=layout, **shared)
    if streamed:
        options: dict[str, Any] = {"mean": MEAN, "std": STD, "channels_last": layout}
        loader.resident = None
        loader.streamed = StreamedSplit(loader.images, loader.labels, 4, device, **options)
    val = Loader(pixels(10, seed=1), batch_size=4, augmented_epochs=0, shuffle=False, channels_last=layout, **shared)
    prepare_device(device)
    model = arrange(network(dropout=dropout), device, precision)
    ours = Training(model, loader, val, config, device=device, precision=precision)
    if device.type == "cpu" and config.cuda_graph:
        ours.take_step = GraphedStep(ours.step, 4, run_again)
    return ours


def trained(ours: Training) -> tuple[list[float], list[str], dict[str, Tensor]]:
    """Return the losses of the epochs, the notes, and the final weights on the CPU."""
    results = list(train(ours))
    weights = {name: value.cpu().float() for name, value in ours.model.state_dict().items()}
    return [result.train_loss for result in results], [note for result in results for note in result.notes], weights


def near(found: dict[str, Tensor], wanted: dict[str, Tensor], atol: float) -> bool:
    return all(torch.allclose(found[name], value, atol=atol) for name, value in wanted.items())


@BOTH
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("streamed", [False, True])
def test_recorded_steps_train_as_single_ones(name: str, dropout: float, streamed: bool) -> None:
    device = torch.device(name)
    sides = [training(device, dropout=dropout, streamed=streamed, cuda_graph=graph) for graph in (False, True)]
    (losses, _, weights), (found, notes, others) = (trained(one) for one in sides)
    assert notes == []
    assert found == pytest.approx(losses, rel=1e-4)
    assert near(others, weights, 1e-4)
    assert isinstance(sides[1].take_step, GraphedStep)
    # the smaller last batch is recorded as well, in the same pool
    assert {size: one is not None for size, one in sides[1].take_step.recorded.items()} == {4: True, 3: True}


def plain_losses(device: torch.device, precision: Any, ours: Training) -> list[float]:
    """Return the losses of a loop written out with PyTorch's own parts, of one epoch."""
    model, data = network().to(device), pixels(23)
    scale, offset = scale_and_offset(MEAN, STD)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    losses, plan = [], ours.train_loader.plan(1)
    model.train()
    for batch, indices in enumerate(torch.from_numpy(plan.order).split(ours.train_loader.batch_sizes)):
        images = torch.from_numpy(data.images)[indices].float() * scale + offset
        optimizer.param_groups[0]["lr"] = ours.lr(batch)
        optimizer.zero_grad()
        with autocast(device, precision):
            logits = model(images.to(device))
        loss = F.cross_entropy(logits.float(), torch.from_numpy(data.labels)[indices].to(device))
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(float(loss.detach()))
    return losses


@BOTH
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_number_format_trains_as_a_plain_loop_in_it(name: str, precision: str) -> None:
    device = torch.device(name)
    ours = training(device, precision=precision, cuda_graph=precision != "fp16", epochs=1)
    ours.train_loader.augmented_epochs = 0
    losses, take = list[float](), ours.take_step

    def taken(*batch: Tensor, lr: float) -> Tensor:
        losses.append(float(loss := take(*batch, lr=lr)))
        return loss

    ours.take_step = taken
    expected = plain_losses(device, precision, ours)
    ours.train_epoch(lambda done, batches: False, lambda: None)
    assert ours.step.notes == []
    assert losses == pytest.approx(expected, rel=1e-3 if precision == "fp32" else 0.05)


@BOTH
@pytest.mark.parametrize("streamed", [False, True])
def test_batches_are_those_of_a_cpu(name: str, streamed: bool) -> None:
    device = torch.device(name)
    ours = training(device, streamed=streamed).train_loader
    if name != "cpu":
        assert (ours.resident is None) == streamed
        assert ours.streamed is None or all(buffer.is_pinned() for buffer in ours.streamed.buffers)
    for epoch in (1, 2):
        theirs = training(torch.device("cpu")).train_loader.epoch(epoch)
        for (images, labels), (wanted, wanted_labels) in zip(ours.epoch(epoch), theirs, strict=True):
            assert torch.allclose(images.cpu(), wanted, atol=1e-6)
            assert labels.cpu().equal(wanted_labels)


@BOTH
@pytest.mark.parametrize("streamed", [False, True])
def test_a_run_that_is_stopped_within_an_epoch_resumes_to_the_same_bits(
    name: str, streamed: bool, tmp_path: Path
) -> None:
    device, checkpoints = torch.device(name), Checkpoints(tmp_path)
    _, _, whole = trained(training(device, dropout=0.3, streamed=streamed))
    stopped = training(device, dropout=0.3, streamed=streamed)
    list(train(stopped, checkpoints=checkpoints, after_step=lambda done, batches: done == 2))
    resumed = training(device, dropout=0.3, streamed=streamed)
    resumed.restore(checkpoints)
    assert resumed.progress.batches_done == 2
    _, _, found = trained(resumed)
    assert all(found[key].equal(value) for key, value in whole.items())


def forgets(device: torch.device) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Record a step of which a replay does nothing, as one that was recorded on another device's stream."""
    capture = CudaCapture(device) if device.type == "cuda" else run_again

    def recorded(work: Callable[[], None]) -> Callable[[], None]:
        capture(work)
        return lambda: None

    return recorded


@BOTH
def test_a_recording_that_does_nothing_is_not_replayed(name: str) -> None:
    device = torch.device(name)
    ours = training(device)
    ours.by_index, ours.take_step = False, GraphedStep(ours.step, 4, forgets(device))
    losses, notes, weights = trained(ours)
    assert len(notes) == 1
    assert "a replay gives the loss nan" in notes[0]
    expected, _, wanted = trained(training(device, cuda_graph=False))
    assert losses == pytest.approx(expected, rel=1e-5)
    assert near(weights, wanted, 1e-5)


class ReadsBack(nn.Module):
    """Needs a number on the CPU in the middle of a step, which no recording allows."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images)
        return logits * (1.0 if float(logits.detach().sum()) > -1e9 else 2.0)


@pytest.mark.gpu
@pytest.mark.skipif(torch.__version__.startswith(("2.10", "2.11")), reason="a failed recording ends the process there")
def test_after_a_failed_recording_the_process_goes_on_and_records_others() -> None:
    device = torch.device("cuda:0")
    ours = training(device)
    ours.model = ours.step.model = ours.step.forward = ReadsBack().to(device)  # type: ignore[assignment]
    ours.step.__init__(ours.model, ours.config, device=device, precision="fp32")  # type: ignore[misc]
    _, notes, _ = trained(ours)
    assert len(notes) == 1
    assert "steps are not recorded as a CUDA graph" in notes[0]
    assert trained(training(device))[1] == []


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler warns of what it could do
def test_the_compiler_works_once_though_the_last_batch_is_smaller() -> None:
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    ours = training(torch.device("cuda:0"), compile="always")
    losses, notes, _ = trained(ours)
    assert notes == []
    assert counters["stats"]["unique_graphs"] == 1
    assert losses == pytest.approx(trained(training(torch.device("cuda:0")))[0], rel=1e-2)


@BOTH
def test_recording_bears_with_a_thread_that_pins_memory(name: str) -> None:
    device, ended, buffers = torch.device(name), threading.Event(), list[Tensor]()

    def pins() -> None:
        while not ended.is_set():
            buffers[:] = [torch.empty(1 << 16, dtype=torch.uint8, pin_memory=device.type == "cuda")]

    thread = threading.Thread(target=pins)
    thread.start()
    try:
        _, notes, _ = trained(training(device))
    finally:
        ended.set()
        thread.join()
    assert notes == []
    assert buffers


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_steps_are_recorded_on_a_second_gpu() -> None:
    first, second = (trained(training(torch.device("cuda", index))) for index in (0, 1))
    assert second[1] == []
    assert near(second[2], first[2], 1e-4)


@BOTH
def test_fp32_convolutions_are_no_tf32(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # PyTorch's default, which a run changes
    device = torch.device(name)
    torch.manual_seed(0)
    model, images = nn.Conv2d(64, 64, 3), torch.randn(8, 64, 16, 16)
    exact = F.conv2d(images.double(), model.weight.double(), model.bias.double()).float()  # type: ignore[union-attr]
    found = arrange(model, device, "fp32")(images.to(device)).detach().cpu()
    assert float((found - exact.detach()).abs().max()) < 1e-4  # TF32 has an error of 1e-3


@BOTH
def test_pooling_that_is_not_deterministic_is_told_before_training(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as a deterministic run has it
    device = torch.device(name)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64, 3)).to(device)
    options: dict[str, Any] = {"device": device, "precision": "fp32", "channels_last": False}
    torch.use_deterministic_algorithms(True)
    try:
        if name == "cpu":
            rehearse(model, "pooled", 3, 9, **options)
        else:
            with pytest.raises(ConfigError, match="--deterministic"):
                rehearse(model, "pooled", 3, 9, **options)
    finally:
        torch.use_deterministic_algorithms(False)


class Hungry(nn.Module):
    """Takes some memory for each image of a training step, and says with how many it worked."""

    def __init__(self, bytes_each: int, limit: int) -> None:
        super().__init__()
        self.inner, self.bytes_each, self.limit, self.worked = network(norm=False), bytes_each, limit, set[int]()

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            if images.device.type == "cpu" and len(images) > self.limit:
                raise RuntimeError("CUDA error: out of memory")
            taken = torch.empty(len(images), self.bytes_each, dtype=torch.uint8, device=images.device)
            del taken
            self.worked.add(len(images))
        logits: Tensor = self.inner(images)
        return logits


@BOTH
def test_a_batch_for_which_memory_does_not_last_is_cut_and_trains_the_same(name: str) -> None:
    device = torch.device(name)
    total = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 1 << 30
    # three images take more than half of the memory, two take less
    each = total // 5 if device.type == "cuda" else 16
    ours = training(device, cuda_graph=False)
    hungry = Hungry(each, 2).to(device)
    ours.model = hungry
    ours.step.__init__(hungry, ours.config, device=device, precision="fp32")  # type: ignore[misc]
    ours.take_step, ours.by_index = ours.step, False
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(0.5, device)
    try:
        losses, notes, _ = trained(ours)
    finally:
        if device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0, device)
            torch.cuda.empty_cache()
    assert notes == ["out of memory with 4 images at once; continuing with 2"]
    assert max(hungry.worked) == 2
    whole = training(device, cuda_graph=False)
    whole.model = network(norm=False).to(device)
    whole.step.__init__(whole.model, whole.config, device=device, precision="fp32")  # type: ignore[misc]
    whole.take_step, whole.by_index = whole.step, False
    assert losses == pytest.approx(trained(whole)[0], rel=1e-3)


ASSERTING = """
import json, sys
from pathlib import Path
import torch
from automl_pt.config import TrainConfig
from automl_pt.study.executor.base import TrialSpec
from automl_pt.study.executor.processes import LocalEngine

folder, device = Path(sys.argv[1]), sys.argv[2]
engine = LocalEngine("test_on_a_gpu:breaks_its_device", [device], threads=1, logs=folder / "logs")
told = []
for number in (0, 1):
    engine.start(TrialSpec(number, TrainConfig(dataset="drawn", device=device), folder, 2, folder))
    while not (messages := engine.wait(30)):
        pass
    told += [[type(messages[0]).__name__, getattr(messages[0], "reason", "")]]
engine.close()
print(json.dumps(told))
"""


def breaks_its_device(spec: Any, should_stop: Any) -> Any:
    """Be a trial; the first one breaks the device for its process."""
    device = torch.device(spec.config.device)
    if spec.number == 0 and device.type == "cpu":
        raise RuntimeError("CUDA error: device-side assert triggered")
    values = torch.ones(4, device=device)
    values[torch.tensor([99 if spec.number == 0 else 1], device=device)].sum().item()
    yield from ()


@pytest.mark.parametrize(
    "name", [pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda:0", marks=pytest.mark.gpu)]
)
def test_an_error_that_stays_in_the_process_ends_it_and_not_the_next_trial(name: str, tmp_path: Path) -> None:
    given = [sys.executable, "-c", ASSERTING, str(tmp_path), name]
    place = {"PYTHONPATH": ":".join([str(Path(__file__).parent), *filter(None, sys.path)])}
    done = subprocess.run(given, capture_output=True, text=True, check=True, env={**os.environ, **place})
    [first, second] = json.loads(done.stdout.splitlines()[-1])
    assert first == ["TrialCrashed", "its GPU failed (CUDA error: device-side assert triggered)"]
    assert second == ["IteratorEnded", ""]
