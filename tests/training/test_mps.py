"""Apple's GPUs, of which none is at hand: what is chosen, waited for, kept and recognised there, shown by fakes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from automl_pt.backbones.random_state import device_state, kept_random_state, set_device_state
from automl_pt.core.errors import DeviceError
from automl_pt.training.device import choose_device, choose_precision, release_memory, synchronise
from automl_pt.training.sgd import SGD

MPS = torch.device("mps")


@pytest.fixture
def apple(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Let a GPU of Apple be there; return what is asked of it."""
    asked: list[Any] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: major <= 13)
    monkeypatch.setattr(torch.mps, "synchronize", lambda: asked.append("wait"))
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: asked.append("empty"))
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: torch.tensor([7], dtype=torch.uint8))
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda state: asked.append(state.tolist()))
    return asked


def test_it_is_used_where_there_is_one(apple: list[Any]) -> None:
    assert choose_device("auto") == choose_device("mps") == MPS
    with pytest.raises(DeviceError, match="present: cpu, mps"):
        choose_device("cuda")


def test_a_format_that_it_lacks_is_replaced(apple: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert [choose_precision(name, MPS) for name in ("auto", "fp16", "bf16")] == ["fp32", "fp16", "fp32"]
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: True)
    assert choose_precision("bf16", MPS) == "bf16"


def test_clocks_wait_for_it_and_its_memory_is_given_back(apple: list[Any]) -> None:
    synchronise(MPS)
    release_memory(MPS)
    release_memory(torch.device("cpu"))
    assert apple == ["wait", "empty"]


def test_its_random_numbers_are_kept(apple: list[Any]) -> None:
    with kept_random_state([MPS]):
        assert apple == []
    assert apple == [[7]]
    set_device_state(MPS, device_state(MPS) + 1)
    assert apple == [[7], [8]]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("options", [{}, {"scales": (1.0, 0.5)}, {"decays": (True, False)}])
def test_single_operations_update_as_the_fused_kernel(momentum: float, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    shapes, found = [(4, 3, 2, 2), (5,)], []
    start, gradients = ([torch.randn(shape) for shape in shapes] for _ in range(2))
    for unfused in (None, "no kernel"):
        parameters = [torch.nn.Parameter(value.clone()) for value in start]
        ours = SGD(parameters, lr=0.1, momentum=momentum, weight_decay=0.01, **options)
        ours.unfused = unfused
        for _ in range(3):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient.clone()
            ours.step()
        found.append([*parameters, *ours.buffers])
    for fused, single in zip(*found, strict=True):
        assert torch.allclose(fused, single, atol=1e-6)
