"""Recognises device errors that have an answer: exhausted memory, and a GPU that only a new process can use again."""

from __future__ import annotations

import sys

#: texts of an exhausted device or process; CUDA, cuBLAS, cuDNN, NVML and MPS each have their own
_NO_MEMORY = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "NVML_SUCCESS == r INTERNAL ASSERT FAILED",
    "MPS backend out of memory",
)
#: cuDNN finds no algorithm where none fits into memory, but also where it supports none
_NO_ENGINE = (
    "GET was unable to find an engine",
    "FIND was unable to find an engine",
    "Unable to find a valid cuDNN algorithm",
)
#: share of a device's memory below which a missing algorithm counts as missing memory
_LITTLE = 1 / 16
#: CUDA errors after which every further call of the process fails with the same error
_LOST = (
    "an illegal memory access was encountered",
    "device-side assert triggered",
    "unspecified launch failure",
    "misaligned address",
    "an illegal instruction was encountered",
    "invalid program counter",
    "hardware stack error",
    "the launch timed out and was terminated",
    "uncorrectable ECC error encountered",
    "uncorrectable NVLink error",
    "GPU is lost",
    "fallen off the bus",
)


class Recording:
    """Whether this process may record CUDA graphs: `forbidden` says why not.

    Before PyTorch 2.12 a failed recording leaves the process unusable. A worker process that runs a trial is
    `replaceable` and may try; a process that nothing would replace does not.
    """

    forbidden: str | None = None
    replaceable: bool = False


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, on a device or in this process; compares type names to avoid importing torch."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, MemoryError) or "OutOfMemoryError" in names:
        return True
    text = str(error)
    return any(known in text for known in _NO_MEMORY) or (
        any(known in text for known in _NO_ENGINE) and _device_is_full()
    )


def is_device_lost(error: BaseException) -> bool:
    """Return whether the CUDA context of this process is gone: only a new process can use the device again."""
    text = str(error)
    return isinstance(error, RuntimeError) and "CUDA" in text and any(known in text for known in _LOST)


def _device_is_full() -> bool:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return False
    free, total = torch.cuda.mem_get_info()
    return bool(free < _LITTLE * total)
