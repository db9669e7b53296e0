"""The recorded step: on a CPU the same static tensors without a recording; on CUDA against the plain step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from test_trainer import MEAN, STD, figures, network, same, settings, training

from automl_pt.core.out_of_memory import Recording
from automl_pt.data.device_split import DeviceSplit
from automl_pt.training.checkpoint import Checkpoints
from automl_pt.training.cuda import graph
from automl_pt.training.cuda.graph import WARM_UP, CudaCapture, GraphedStep, obstacle, why_not
from automl_pt.training.loop import train


def run_again(work: Callable[[], None]) -> Callable[[], None]:
    """Stand in for a recording: trial runs first, as CUDA needs them, then the work itself at each replay."""
    for _ in range(WARM_UP):
        work()
    return work


def static(**changes: Any) -> Any:
    ours = training(settings(**changes), network(dropout=0.3))
    ours.take_step = GraphedStep(ours.step, ours.train_loader.batch_sizes[0], run_again)
    return ours


@pytest.mark.parametrize(
    "changes", [{}, {"clip_grad_norm": 0.1}, {"schedule": "step", "epochs": 4}, {"momentum": 0.0}, {"ema_decay": 0.9}]
)
def test_static_tensors_change_nothing(changes: dict[str, Any]) -> None:
    # 23 images in batches of 4: the last batch of an epoch is smaller, and recorded as well
    plain = training(settings(augment="early", **changes), network(dropout=0.3))
    expected = list(train(plain))
    ours = static(augment="early", **changes)
    found = list(train(ours))
    assert [figures(result)[:2] for result in found] == [
        (epoch, pytest.approx(loss, rel=1e-5)) for epoch, loss, *_ in map(figures, expected)
    ]
    for name, value in plain.model.state_dict().items():
        assert torch.allclose(ours.model.state_dict()[name], value, atol=1e-6), name


def by_index(*, channels_last: bool = False, static: bool = True, **changes: Any) -> Any:
    """Return a training whose batches are made from indices by tensors alone, within the step where it is `static`."""
    ours = training(settings(augment="early", **changes), network(dropout=0.3))
    loader = ours.train_loader
    images = torch.from_numpy(np.asarray(loader.images))
    rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    shuffled = torch.empty_like(images)
    shuffled[rows] = images
    split = DeviceSplit(
        shuffled.permute(0, 2, 3, 1).contiguous(), rows, loader.labels, mean=MEAN, std=STD, channels_last=channels_last
    )
    loader.resident = split
    if static:
        ours.by_index, ours.take_step = True, GraphedStep(ours.step, 4, run_again, split.batch)
    return ours


@pytest.mark.parametrize("channels_last", [False, True])
def test_batches_made_within_the_step_change_nothing(channels_last: bool) -> None:
    expected = training(settings(augment="early"), network(dropout=0.3))
    outside = by_index(channels_last=channels_last, static=False)
    inside = by_index(channels_last=channels_last)
    results = [list(train(one)) for one in (expected, outside, inside)]
    for result in results[1:]:
        assert [figures(one)[1] for one in result] == pytest.approx([figures(one)[1] for one in results[0]], rel=1e-4)
    for name, value in expected.model.state_dict().items():
        for ours in (outside, inside):
            assert torch.allclose(ours.model.state_dict()[name], value, atol=1e-5), name


def test_a_run_by_index_goes_on_within_an_epoch(tmp_path: Path) -> None:
    whole, checkpoints = by_index(), Checkpoints(tmp_path)
    list(train(whole))
    list(train(by_index(), checkpoints=checkpoints, after_step=lambda done, batches: done == 2))
    second = by_index()
    second.restore(checkpoints)
    assert second.progress.batches_done == 2
    list(train(second, checkpoints=checkpoints))
    assert same(second.model, whole.model)


def test_a_recorded_run_is_resumed(tmp_path: Path) -> None:
    whole = static()
    list(train(whole))
    checkpoints = Checkpoints(tmp_path)
    generator = train(static(), checkpoints=checkpoints)
    next(generator)
    generator.close()  # type: ignore[attr-defined]
    second = static()
    second.restore(checkpoints)
    list(train(second, checkpoints=checkpoints))
    assert same(second.model, whole.model)


def test_what_cannot_be_recorded_is_taken_step_by_step_and_told() -> None:
    def refuses(work: Callable[[], None]) -> Callable[[], None]:
        work()  # a run before the recording that must leave no trace
        raise RuntimeError("operation not permitted when stream is capturing\nmore lines")

    plain = training(settings(), network(dropout=0.3))
    list(train(plain))
    ours = training(settings(), network(dropout=0.3))
    ours.take_step = GraphedStep(ours.step, 4, refuses)
    results = list(train(ours))
    assert same(ours.model, plain.model)
    assert results[0].notes == (
        "steps are not recorded as a CUDA graph but run one by one: operation not permitted when stream is capturing",
    )


def test_a_cpu_records_nothing() -> None:
    ours = training(settings())
    assert why_not(ours.step) == "only CUDA devices record graphs"
    assert ours.take_step is ours.step


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"precision": "fp16"}, "scaler"),
        ({"micro_batch_size": 2}, "micro-batches"),
        ({}, None),
    ],
)
def test_what_keeps_a_step_from_being_recorded(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], reason: str | None
) -> None:
    monkeypatch.setattr(Recording, "replaceable", True)  # for PyTorch before 2.12
    step = training(settings()).step
    step.device = torch.device("cuda")
    for name, value in change.items():
        setattr(step, name, value)
    found = why_not(step)
    assert found is None if reason is None else found is not None and reason in found


def take(capture: Any, *, epochs: int = 1, model: torch.nn.Module | None = None, **changes: Any) -> Any:
    """Train for some epochs with steps recorded by `capture`; the notes are kept beside."""
    ours = training(settings(epochs=epochs, **changes), network() if model is None else model)
    ours.take_step = GraphedStep(ours.step, 4, capture)
    ours.notes = [note for result in train(ours) for note in result.notes]
    return ours


def plainly(**changes: Any) -> Any:
    ours = training(settings(**changes), network())
    list(train(ours))
    return ours


def does_nothing(work: Callable[[], None]) -> Callable[[], None]:
    work()
    return lambda: None


def loses(kind: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Record a step whose loss is right and whose state of a `kind` stays: a recording that missed a part of it."""

    def capture(work: Callable[[], None]) -> Callable[[], None]:
        step = work.__self__.step  # type: ignore[attr-defined]

        def replay() -> None:
            kept = [tensor.clone() for tensor in step.state()[kind]]
            work()
            step._copy(step.state()[kind], kept)

        return replay

    return capture


@pytest.mark.parametrize(
    ("capture", "told"),
    [
        (does_nothing, "a replay gives the loss nan"),
        *(
            (loses(kind), f"a replay moves the {kind} 1 of a step away")
            for kind in ("weights", "optimiser", "statistics", "counters")
        ),
    ],
)
def test_no_wrong_recording_is_replayed(capture: Any, told: str) -> None:
    ours = take(capture, epochs=2)
    assert len(ours.notes) == 1
    assert told in ours.notes[0]
    assert same(ours.model, plainly(epochs=2).model)


def test_checking_a_recording_leaves_no_trace() -> None:
    # the plain step with a rate in a tensor is what run_again repeats
    assert take(run_again, epochs=2).notes == []
    ours, other = take(run_again, epochs=2, momentum=0.0), plainly(epochs=2, momentum=0.0)
    for name, value in other.model.state_dict().items():
        assert torch.allclose(ours.model.state_dict()[name], value, atol=1e-6), name


class ShortOfMemory:
    """Records full batches; has no memory for another recording, nor for more than two images of a smaller batch."""

    def __init__(self, *, hidden: bool) -> None:
        self.recorded, self.replayed, self.hidden = 0, 0, hidden

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        self.recorded += 1
        if self.recorded > 1:
            try:
                raise RuntimeError("CUDA error: out of memory")
            finally:
                if self.hidden:  # what PyTorch says as it ends a recording that failed
                    raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
        work()

        def replay() -> None:
            self.replayed += 1
            work()

        return replay


@pytest.mark.parametrize("hidden", [False, True])
def test_a_smaller_batch_without_memory_is_cut_alone(hidden: bool) -> None:
    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network(norm=False)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if len(images) == 3 and torch.is_grad_enabled():
                raise RuntimeError("CUDA error: out of memory")
            logits: torch.Tensor = self.inner(images)
            return logits

    capture = ShortOfMemory(hidden=hidden)
    ours = take(capture, epochs=3, model=Small())
    assert ours.notes == ["out of memory with 3 images at once; continuing with 2"]
    assert ours.step.micro_batch_size is None
    assert capture.recorded == 2
    assert capture.replayed == 1 + 3 * 5


def fails_at_the_second(work: Callable[[], None]) -> Callable[[], None]:
    raise RuntimeError("CUDA error: operation not supported")


@pytest.mark.parametrize("second", [fails_at_the_second, does_nothing])
def test_a_smaller_batch_that_cannot_be_recorded_is_taken_alone(second: Callable[..., Any]) -> None:
    replayed: list[int] = []

    def capture(work: Callable[[], None]) -> Callable[[], None]:
        if replayed:
            return second(work)  # type: ignore[no-any-return]  # a capture
        return lambda: (replayed.append(1), work())[1]

    ours, plain = take(capture, epochs=3), plainly(epochs=3)
    assert len(ours.notes) == 1
    assert ours.notes[0].startswith("batches of 3 images are not replayed from a CUDA graph, others are: ")
    assert len(replayed) == 1 + 3 * 5
    for name, value in plain.model.state_dict().items():
        assert torch.allclose(ours.model.state_dict()[name], value, atol=1e-6), name


def test_a_run_that_is_cut_releases_its_recordings() -> None:
    ours = take(run_again)
    assert set(ours.take_step.recorded) == {4, 3}
    ours.step.micro_batch_size = 2
    ours.take_step(torch.rand(4, 3, 8, 8), torch.arange(4) % 3, lr=0.01)
    assert ours.take_step.recorded == {}


@pytest.mark.parametrize(
    ("version", "replaceable", "told"), [("2.11.0", False, "2.12 can"), ("2.11.0", True, None), ("2.12.0", False, None)]
)
def test_a_process_that_nothing_replaces_records_only_where_it_recovers(
    monkeypatch: pytest.MonkeyPatch, version: str, replaceable: bool, told: str | None
) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setattr(Recording, "replaceable", replaceable)
    found = obstacle()
    assert found is None if told is None else found is not None and told in found
    monkeypatch.setattr(Recording, "forbidden", "it failed before")
    assert obstacle() == "it failed before"


class FakeCuda:
    """Stands for the functions of torch.cuda that recording calls, and keeps the order of the calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[Any] = []
        for name in ("device", "Stream", "current_stream", "stream", "CUDAGraph", "graph", "graph_pool_handle"):
            monkeypatch.setattr(torch.cuda, name, self._fake(name))
        graph.capture_stream.cache_clear()

    def _fake(self, name: str) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            self.calls.append((name, arguments, options))
            return MagicMock(name=name)

        return called

    def named(self, name: str) -> list[Any]:
        return [call for call in self.calls if call[0] == name]


def test_recording_is_on_the_runs_device_on_one_stream_from_one_pool_and_ignores_other_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda, device, done = FakeCuda(monkeypatch), torch.device("cuda", 1), []
    capture = CudaCapture(device)
    for _ in range(2):
        capture(lambda: done.append(len(cuda.named("graph"))))
    CudaCapture(device)(lambda: None)
    assert done == [0] * WARM_UP + [1] * (1 + WARM_UP) + [2]
    assert cuda.calls[0][:2] == ("device", (device,))
    assert [call[1] for call in cuda.named("Stream")] == [(device,)]
    assert len(cuda.named("graph_pool_handle")) == 2  # one for each run
    first, second, other = (call[2] for call in cuda.named("graph"))
    assert first == second
    assert first["pool"] is not other["pool"]
    assert first["stream"] is other["stream"]
    assert first["capture_error_mode"] == "thread_local"
    assert {call[1] for call in cuda.named("current_stream")} == {(device,)}
    graph.capture_stream.cache_clear()
