"""Chooses how a run executes its steps: one by one, recorded, or recorded and compiled when that pays."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from automl_pt.training.cuda.compile import CompiledWhenItPays
from automl_pt.training.cuda.graph import TakeStep, recorded, why_not

if TYPE_CHECKING:
    from automl_pt.config import TrainConfig
    from automl_pt.data.loader import Loader
    from automl_pt.training.step import Step


def make_step_fn(
    step: Step, loader: Loader, config: TrainConfig, steps_left: Callable[[], int]
) -> tuple[TakeStep, bool]:
    """Return the function that executes a run's steps, and whether it takes batches as indices.

    It does if steps are recorded and the images are on the device, because the recorded step then creates the batch.
    """
    if config.cuda_graph and step.device.type == "cuda" and not step.optimizer.capturable:
        step.notes.append(f"steps are not recorded as a CUDA graph but taken one by one: {why_not(step)}")
    batch_size, split = loader.batch_sizes[0], loader.resident
    by_index = config.cuda_graph and split is not None and not loader.policy.mixes and why_not(step) is None
    make = split.batch if split is not None and by_index else None

    def record() -> TakeStep:
        return recorded(step, batch_size, wanted=config.cuda_graph, make=make)

    # a compiled network computes in another order, from a step that depends on the clock
    if config.compile == "auto" and step.device.type == "cuda" and not config.deterministic:
        return CompiledWhenItPays(step, batch_size, record, steps_left), by_index
    return record(), by_index
