"""The random states of a process that a network may draw from: PyTorch's, NumPy's and Python's.

All three are seeded together, stored in checkpoints, and restored after steps that must have no side effect. A plugin
seeds its own generators, such as `numpy.random.default_rng()`, itself.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


def seed_all(seed: int) -> None:
    """Seed the global random states of PyTorch, NumPy and Python with a number in [0, 2**63)."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def kept_random_state(devices: Iterable[torch.device] = ()) -> Iterator[None]:
    """Restore the global random states on the CPU, and on the GPUs among `devices`, after the block."""
    numbers, devices = (random.getstate(), np.random.get_state()), tuple(devices)
    on_mps = [device_state(device) for device in devices if device.type == "mps"]
    try:
        with torch.random.fork_rng([device for device in devices if device.type == "cuda"]):
            yield
    finally:
        for state in on_mps:
            torch.mps.set_rng_state(state)
        random.setstate(numbers[0])
        np.random.set_state(numbers[1])


def device_state(device: torch.device) -> Tensor:
    """Return the state of a GPU's own random numbers; empty for the CPU."""
    if device.type == "mps":
        return torch.mps.get_rng_state()
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.empty(0, dtype=torch.uint8)


def set_device_state(device: torch.device, state: Tensor) -> None:
    """Restore the state that `device_state` returned for a GPU of the same kind."""
    if device.type == "mps":
        torch.mps.set_rng_state(state)
    elif device.type == "cuda":
        torch.cuda.set_rng_state(state, device)


def other_states() -> Tensor:
    """Return NumPy's and Python's random states as float64[1, N], which represents their 32-bit numbers exactly."""
    _, keys, position, has_gauss, gauss = np.random.get_state()
    _, words, next_gauss = random.getstate()
    numbers = [*keys, position, has_gauss, gauss, *words, next_gauss is not None, next_gauss or 0.0]
    return torch.tensor([[float(number) for number in numbers]], dtype=torch.float64)


def set_other_states(state: Tensor) -> None:
    """Restore the states that `other_states` returned, as float64[N]."""
    numbers = state.tolist()
    keys, (position, has_gauss, gauss), words = numbers[:624], numbers[624:627], numbers[627:-2]
    np.random.set_state(("MT19937", np.array(keys, np.uint32), int(position), int(has_gauss), gauss))
    random.setstate((3, tuple(int(word) for word in words), numbers[-1] if numbers[-2] else None))
