"""How a run takes its steps: one by one, recorded, or recorded of a network that is compiled when it pays."""

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
    """Return what takes the steps of a run, and whether it is given a batch by its indices alone.

    Indices are enough where steps are recorded and the images lie on the device: the recorded step makes the batch.
    """
    batch_size, split = loader.batch_sizes[0], loader.resident
    by_index = config.cuda_graph and split is not None and why_not(step) is None
    make = split.batch if split is not None and by_index else None

    def record() -> TakeStep:
        return recorded(step, batch_size, wanted=config.cuda_graph, make=make)

    # what is compiled computes in another order, and when depends on the clock
    if config.compile == "auto" and step.device.type == "cuda" and not config.deterministic:
        return CompiledWhenItPays(step, batch_size, record, steps_left), by_index
    return record(), by_index
