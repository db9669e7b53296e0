"""Which devices the worker processes of a search use, and with how many threads."""

from __future__ import annotations

from collections.abc import Sequence

from automl_pt.config import SearchConfig


def devices_for(config: SearchConfig) -> list[str]:
    """Name the device of each worker: one per GPU, or per CPU core; `workers` of them where that is set.

    Trials that train a head on features have one worker, because starting another process costs more than they do. More
    workers than GPUs share these in turn. Raises DeviceError when a device asked for is absent.
    """
    import torch

    from automl_pt.features.head_training import trains_on_features
    from automl_pt.training.device import available_cores, choose_device

    device = choose_device(config.device)
    if device.type == "cuda" and config.device in ("auto", "cuda"):
        places = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    else:
        places = [str(device)]
    default = available_cores() if device.type == "cpu" else len(places)
    count = config.workers or (1 if trains_on_features(config) else max(1, min(default, config.trials)))
    return [places[index % len(places)] for index in range(count)]


def threads_for(config: SearchConfig, workers: int) -> int:
    """Return the CPU threads of each worker: those asked for, or a fair share of the cores."""
    from automl_pt.training.device import available_cores

    return config.threads or max(1, available_cores() // max(1, workers))


def memory_for(devices: Sequence[str]) -> int:
    """Return the bytes of memory that each worker may take, its share of its device's; 0 where that is unknown."""
    import torch

    from automl_pt.data.memory import available_memory

    shares = []
    for name in sorted(set(devices)):
        kind, whole = torch.device(name).type, 0
        if kind == "cuda":
            whole = torch.cuda.get_device_properties(name).total_memory
        elif kind == "cpu":
            whole = available_memory()
        shares.append(whole // devices.count(name))
    return min(shares)
