"""Chooses how a run executes its steps: one by one, recorded, or recorded with a compiled network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from automl_pt.training.cuda.compile import CompiledStep
from automl_pt.training.cuda.graph import GraphedStep, TakeStep, why_not

if TYPE_CHECKING:
    from automl_pt.config import TrainConfig
    from automl_pt.data.loader import Loader
    from automl_pt.training.step import Step


def make_step_fn(step: Step, loader: Loader, config: TrainConfig) -> tuple[TakeStep, bool]:
    """Return the function that executes a run's steps, and whether it takes batches as indices.

    It does if steps are recorded and the images are on the device, because the recorded step then creates the batch;
    not if batches are mixed, which draws random numbers on the CPU.
    """
    batch_size, split, obstacle = loader.batch_sizes[0], loader.resident, why_not(step)
    by_index = config.cuda_graph and obstacle is None and split is not None and not loader.policy.mixes
    make = split.batch if split is not None and by_index else None
    if config.cuda_graph and obstacle is not None and step.device.type == "cuda":
        step.notes.append(f"steps are not recorded as a CUDA graph but run one by one: {obstacle}")

    def record() -> TakeStep:
        return GraphedStep(step, batch_size, make=make) if config.cuda_graph and obstacle is None else step

    if config.compile == "always" and step.device.type == "cuda":
        return CompiledStep(step, batch_size, record, make=make), by_index
    return record(), by_index
