"""Checks the machine and the installation for what a run needs."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from automl_pt.core.errors import AutomlError
from automl_pt.core.files import cache_folder
from automl_pt.core.installation import explain, installed_version, torch_for_torchvision

#: bytes; less free space than this cannot hold a study with its checkpoints
LITTLE_DISK = 2 << 30
PACKAGES = ("automl-pt", "torch", "torchvision", "timm", "optuna", "pillow", "safetensors", "scikit-learn", "numpy")


@dataclass(frozen=True)
class MachineCheck:
    """One line of the doctor's report; `problem` states the fault and what to do; empty if there is none."""

    name: str
    value: str
    problem: str = ""


def examine(files: Sequence[str] = ()) -> list[MachineCheck]:
    """Return all findings, in the order of the report; `files` are plugin files to load as well."""
    return [python(), *packages(), *torch_pair(), *devices(), cores(), memory(), *disks(), *plugins(files)]


def python() -> MachineCheck:
    """Return which Python runs, and where."""
    return MachineCheck(
        "Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}, {sys.prefix}"
    )


def packages() -> list[MachineCheck]:
    """Return the versions of the packages that affect results, without importing them."""
    missing = "`pip install .` in the checkout of automl-pt installs it"
    versions = [(name, installed_version(name)) for name in PACKAGES]
    return [MachineCheck(name, found, missing if found == "not installed" else "") for name, found in versions]


def torch_pair() -> list[MachineCheck]:
    """Import torch and torchvision together, as every run does; explain an error."""
    try:
        import torch
        import torchvision  # noqa: F401  # its import registers the operators, or fails to

        torch.ops.torchvision.nms  # noqa: B018  # AttributeError where the compiled part was not loaded
    except Exception as error:  # any error is the finding
        known = explain(error)
        problem = str(known) if known is not None else f"{type(error).__name__}: {error}"
        return [MachineCheck("torch with torchvision", "broken", problem)]
    wanted = torch_for_torchvision()
    suits = f", built for torch {wanted}" if wanted else ""
    return [MachineCheck("torch with torchvision", f"work together{suits}")]


def devices() -> list[MachineCheck]:
    """Return the devices that PyTorch sees, and what `--device auto` and `--precision auto` choose."""
    try:
        import torch
    except Exception as error:  # torch_pair reports it in full
        return [MachineCheck("device", "unknown", f"torch cannot be imported: {type(error).__name__}")]
    from automl_pt.training.device import choose_device, choose_precision, describe

    device = choose_device("auto")
    return [
        MachineCheck("CUDA", _cuda(torch.version.cuda, torch.cuda.is_available(), torch.cuda.device_count())),
        *(_gpu(index) for index in range(torch.cuda.device_count())),
        MachineCheck("device", f"--device auto is {describe(device)}"),
        MachineCheck("precision", f"--precision auto is {choose_precision('auto', device)}"),
    ]


def cores() -> MachineCheck:
    """Return how many CPU cores this process may use."""
    from automl_pt.training.device import available_cores

    return MachineCheck("cores", f"{available_cores()} of {os.cpu_count()} may be used")


def memory() -> MachineCheck:
    """Return the memory of the machine, and the limit of the container if there is one."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = memory_limit(Path("/sys/fs/cgroup"))
    limited = f", of which this container may use {_size(limit)}" if limit and limit < total else ""
    return MachineCheck("memory", f"{_size(total)}{limited}")


def memory_limit(root: Path) -> int | None:
    """Return the bytes granted by the cgroup mounted at `root` (version 2, else 1), or None where there is no bound."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (root / name).read_text().strip()
        except OSError:
            continue  # the other version, or no cgroup file system at all
        return int(text) if text.isdigit() else None
    return None


def disks() -> list[MachineCheck]:
    """Return the free space of the working folder and of the cache folder, and whether they are writable."""
    return [disk("disk for studies", Path.cwd()), disk("disk for the cache", cache_folder())]


def disk(name: str, folder: Path) -> MachineCheck:
    """Return the free space of the file system of `folder`, which need not exist yet."""
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    free = shutil.disk_usage(there).free
    problem = ""
    if not os.access(there, os.W_OK):
        problem = "it cannot be written; choose another folder" + (
            " with AUTOML_PT_CACHE" if folder == cache_folder() else ""
        )
    elif free < LITTLE_DISK:
        problem = f"less than {_size(LITTLE_DISK)} are free; a study's checkpoints may not fit"
    return MachineCheck(name, f"{_size(free)} free in {folder}", problem)


def plugins(files: Sequence[str]) -> list[MachineCheck]:
    """Load every plugin with all that it registers, and return the faults."""
    from automl_pt.plugins.manager import load_plugins

    try:
        found = load_plugins(files)
        registered = (found.backbones(), found.datasets())
    except AutomlError as error:
        return [MachineCheck("plugins", "broken", str(error))]
    names = [f"{plugin.name} {plugin.version}".strip() for plugin in found.loaded]
    counts = f"{len(registered[0])} backbones and {len(registered[1])} datasets"
    return [
        MachineCheck("plugins", f"{', '.join(names)}: {counts}"),
        *(MachineCheck("plugin not loaded", fault.given.partition(":")[0], str(fault)) for fault in found.faults),
        *(MachineCheck("plugin", "changed what is not its own", note) for note in found.notes),
    ]


def _cuda(built: str | None, available: bool, count: int) -> str:
    from automl_pt.training.device import gpu_out_of_reach

    if built is None:
        return "torch is built without it"
    if available:
        return f"{count} GPU{'s' if count != 1 else ''}"
    return f"torch is built for {built}; {gpu_out_of_reach() or 'no GPU is visible'}"


def _gpu(index: int) -> MachineCheck:
    import torch

    properties = torch.cuda.get_device_properties(index)
    capability = f"{properties.major}.{properties.minor}"
    return MachineCheck(
        f"cuda:{index}", f"{properties.name}, {_size(properties.total_memory)}, capability {capability}"
    )


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
