"""Chooses a run's device, number format and CPU threads."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path
from typing import Literal

import torch

from automl_pt.core.cores import available_cores as available_cores
from automl_pt.core.cores import cgroup_quota as cgroup_quota
from automl_pt.core.errors import DeviceError

NumberFormat = Literal["fp32", "bf16", "fp16"]


def choose_device(name: str) -> torch.device:
    """Return the device called `name` ("auto", "cpu", "cuda[:n]", "mps"); raise DeviceError if it does not exist."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    count = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}[device.type]
    if (device.index or 0) >= count:
        present = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        present += ["mps"] if torch.backends.mps.is_available() else []
        reason = gpu_out_of_reach() if device.type == "cuda" else None
        raise DeviceError(
            "the requested device was not found",
            given=f"{name!r}; present: {', '.join(present)}" + (f"; {reason}" if reason else ""),
            remedy="choose one that is present, or use `--device auto`; `automl-pt doctor` shows what PyTorch finds",
        )
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def gpu_out_of_reach(driver: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """Return why PyTorch cannot use a GPU whose driver is installed, as when that is too old; None otherwise."""
    if torch.cuda.is_available() or not driver.exists():
        return None
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]  # PyTorch's own, without annotations
    except (RuntimeError, AssertionError) as error:  # the latter: PyTorch was built without CUDA
        reason = str(error).strip().splitlines()[0]
        return f"an NVIDIA driver is installed, but PyTorch cannot use the GPU: {reason}"
    return None


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given, so that a clock that is read then measures it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def release_memory(device: torch.device) -> None:
    """Give the memory that PyTorch keeps for later use back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def prepare_device(device: torch.device) -> None:
    """Make a GPU this process's current one, because parts of PyTorch work on that whatever device is named."""
    if device.type == "cuda":
        torch.cuda.set_device(device)


def choose_precision(name: str, device: torch.device) -> NumberFormat:
    """Return the number format of the forward pass; "auto" uses the one that the device computes natively.

    On CUDA that is bf16 from Ampere on and fp16 before it. On a CPU it is what `has_fast_bf16` says, and
    `number_format.faster_format` corrects it for a network that is slower so. This choice reads the hardware and times
    nothing. A format that the device does not compute is replaced by fp32; a run has a note then.
    """
    if name == "bf16" and device.type == "mps" and not torch.backends.mps.is_macos_or_newer(14, 0):
        return "fp32"  # autocast would be off there, with a warning for each pass
    if name != "auto":
        return name  # type: ignore[return-value]  # the settings allow just these names
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    return "bf16" if device.type == "cpu" and has_fast_bf16() else "fp32"


def has_fast_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether bf16 pays on this CPU: with AMX tiles, or on an AMD processor with AVX512-BF16.

    On the latter (Zen 4) it trains 1.0 to 2.0 times as fast as fp32 (benchmarks/number_formats.py). On an Intel Xeon
    without AMX it was measured at 0.75 to 0.95 times the speed of fp32 (ResNet-18 and DenseNet-121, 64 and 224 px).
    """
    return has_amx() or (_supports("_is_avx512_bf16_supported") and "AuthenticAMD" in _vendor(cpuinfo))


def has_amx() -> bool:
    """Return whether this CPU has AMX tiles, which multiply bf16 matrices natively."""
    return _supports("_is_amx_tile_supported")


def _supports(name: str) -> bool:
    probe = getattr(torch.cpu, name, None)  # private, so it may be missing
    return bool(probe()) if probe is not None else False


def _vendor(cpuinfo: Path) -> str:
    """Return the text that names the CPU's maker: Linux's `vendor_id`, else the processor's description."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")


def default_threads() -> int:
    """Return the default CPU threads of a run: the cores, limited by OMP_NUM_THREADS (which torchrun sets)."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return min(available_cores(), int(told)) if told.isdigit() and int(told) > 0 else available_cores()


def describe(device: torch.device) -> str:
    """Return a description of the device: a GPU's model, or the CPU with its threads."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)


def peak_memory(device: torch.device) -> int:
    """Return the peak memory so far, in bytes: of the device on CUDA, else this process's resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:  # Linux: getrusage includes the peak of the process that started this one
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows, whose standard library has no such figure
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if os.uname().sysname == "Darwin" else 1024)


#: numbers of glibc's settings (malloc.h), and the largest value of the first
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _LARGEST_THRESHOLD = -1, -3, 32 * 2**20


def keep_freed_memory() -> bool:
    """Make glibc keep freed blocks of up to 32 MiB; return whether it does. Does nothing without glibc.

    By default glibc returns most of a step's memory to the system, which maps it again at the next step, page by page
    and zeroed: up to 34,000 page faults a step, 2 to 8 % of a step's time on a CPU, for 1 % less memory at the peak.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    settings = {_MMAP_THRESHOLD: _LARGEST_THRESHOLD, _TRIM_THRESHOLD: 2**31 - 1}
    libc = ctypes.CDLL(None)
    return all(libc.mallopt(name, value) == 1 for name, value in settings.items())
