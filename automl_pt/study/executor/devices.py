"""Assigns devices and threads to the worker processes of a search."""

from __future__ import annotations

from collections.abc import Sequence

from automl_pt.study.executor.messages import Place


def devices_for(asked: str, workers: int | None, trials: int) -> list[str]:
    """Return the device of each worker: one per GPU, or per CPU core; `workers` of them if that is set.

    `asked` is the setting `device`; there are no more workers than `trials` unless they are set. More workers than GPUs
    share these alternately. Raises DeviceError for a requested device that does not exist.
    """
    import torch

    from automl_pt.training.device import available_cores, choose_device

    device = choose_device(asked)
    if device.type == "cuda" and asked in ("auto", "cuda"):
        places = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    else:
        places = [str(device)]
    default = available_cores() if device.type == "cpu" else len(places)
    count = workers or max(1, min(default, trials))
    return [places[index % len(places)] for index in range(count)]


def threads_for(asked: int | None, workers: int) -> int:
    """Return the CPU threads of each worker: the requested number, or an equal share of the cores."""
    from automl_pt.training.device import available_cores

    return asked or max(1, available_cores() // max(1, workers))


def places_for(devices: Sequence[str]) -> list[Place]:
    """Return a place for each worker of this machine: each takes its share of its device's memory."""
    import torch

    from automl_pt.data.memory import available_memory

    kinds, memory = dict[str, str](), dict[str, int]()
    for name in dict.fromkeys(devices):
        kind = torch.device(name).type
        kinds[name], memory[name] = kind, 0
        if kind == "cuda":
            found = torch.cuda.get_device_properties(name)
            kinds[name], memory[name] = found.name, found.total_memory // devices.count(name)
        elif kind == "cpu":
            memory[name] = available_memory() // devices.count(name)
    return [Place(name, kinds[name], memory[name]) for name in devices]
