"""Which texts of CUDA, cuBLAS and cuDNN mean that memory ran out, and which that the process has lost its GPU."""

from __future__ import annotations

import pytest
import torch

from automl_pt.core.errors import DeviceLostError
from automl_pt.core.out_of_memory import is_device_lost, is_out_of_memory
from automl_pt.plugins.faults import networks_fault
from automl_pt.study.executor.failures import OUT_OF_MEMORY, failure_of
from automl_pt.study.executor.messages import TrialCrashed, TrialFailed


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError('NVML_SUCCESS == r INTERNAL ASSERT FAILED at "../c10/cuda/CUDACachingAllocator.cpp":830'),
        RuntimeError("MPS backend out of memory (MPS allocated: 5.10 GB, other allocations: 8.39 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_memory_that_ran_out_is_known_by_every_text(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert not is_device_lost(error)
    assert failure_of(3, error) == TrialFailed(3, OUT_OF_MEMORY)
    assert networks_fault(error, "tiny") is None


@pytest.mark.parametrize(
    "text", ["GET was unable to find an engine to execute", "Unable to find a valid cuDNN algorithm"]
)
@pytest.mark.parametrize(("free", "expected"), [(1, True), (40, False)])
def test_a_missing_algorithm_means_missing_memory_only_on_a_full_device(
    monkeypatch: pytest.MonkeyPatch, text: str, free: int, expected: bool
) -> None:
    assert not is_out_of_memory(RuntimeError(text))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, 80))
    assert is_out_of_memory(RuntimeError(text)) is expected


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: an illegal memory access was encountered",
        "CUDA error: device-side assert triggered",
        "CUDA error: unspecified launch failure",
        "CUDA error: uncorrectable ECC error encountered",
    ],
)
def test_an_error_that_stays_in_the_process_counts_as_its_crash(text: str) -> None:
    error = RuntimeError(f"{text}\nCompile with TORCH_USE_CUDA_DSA")
    assert is_device_lost(error)
    assert not is_out_of_memory(error)
    assert failure_of(3, error) == TrialCrashed(3, f"its GPU failed ({text})")
    blamed = networks_fault(error, "tiny")
    assert isinstance(blamed, DeviceLostError)
    assert blamed.given == text


def test_errors_of_a_recording_do_not_lose_the_device() -> None:
    assert not is_device_lost(RuntimeError("CUDA error: operation not permitted when stream is capturing"))
    assert not is_device_lost(ValueError("CUDA error: device-side assert triggered"))
