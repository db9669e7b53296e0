"""The weights of an optimiser that is evaluated at an average, with batch-norm statistics that belong to them.

Schedule-Free methods train at one point and are evaluated at another, an average. Batch normalisation has seen the
first alone, so that its statistics are computed anew for the second: by a pass of training images, as the method's
authors ask (https://github.com/facebookresearch/schedule_free).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from automl_pt.training.batch_norm import moving_buffers, normalisations
from automl_pt.training.evaluation import autocast
from automl_pt.training.micro_batch import MicroBatch
from automl_pt.training.moving_average import copied
from automl_pt.training.optimizers import LibraryOptimizer

if TYPE_CHECKING:
    from automl_pt.data.loader import Loader
    from automl_pt.training.step import Step

#: most training batches from which the statistics are computed: the number in the authors' own example
BATCHES = 50


class AveragedWeights:
    """Keeps in `module` a copy of the model at the optimiser's average: what is evaluated and saved."""

    def __init__(self, step: Step) -> None:
        assert isinstance(step.optimizer, LibraryOptimizer)
        self.step, self.optimizer, self.module = step, step.optimizer, copied(step.model)

    def update(self, loader: Loader, epoch: int) -> nn.Module:
        """Take over the average as it is now; statistics are those of the first batches of `epoch`, as it was trained.

        Where statistics are kept, or there are none, no image is read. No random number is drawn.
        """
        own = dict(self.module.named_parameters())
        trained = {id(parameter): name for name, parameter in self.step.model.named_parameters()}
        self.optimizer.average_into([own[trained[id(parameter)]] for parameter in self.optimizer.parameters])
        with torch.no_grad():
            for target, source in zip(self.module.buffers(), self.step.model.buffers(), strict=True):
                target.copy_(source)
        self.module.eval()
        if layers := self._trained_normalisations():
            self._compute_statistics(layers, loader, epoch)
        return self.module

    def state_dict(self) -> Mapping[str, Tensor]:
        """Return the averaged tensors."""
        found: Mapping[str, Tensor] = self.module.state_dict()
        return found

    def _trained_normalisations(self) -> list[nn.modules.batchnorm._BatchNorm]:
        moving = {name for name, layer in normalisations(self.step.model) if layer.training}
        return [
            layer
            for name, layer in normalisations(self.module)
            if name in moving and isinstance(layer, nn.modules.batchnorm._BatchNorm)
        ]

    def _compute_statistics(self, layers: list[nn.modules.batchnorm._BatchNorm], loader: Loader, epoch: int) -> None:
        step, momenta = self.step, [layer.momentum for layer in layers]
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # the plain mean over the batches
            layer.train()
        micro_batch = MicroBatch(step.micro_batch_size)
        with torch.no_grad(), autocast(step.device, step.precision):
            for images, _ in islice(loader.epoch(epoch), BATCHES):
                micro_batch(self.module, images)
        one = torch.ones((), device=step.device)
        step.group.average([], moving_buffers(self.module), one.clone(), one)
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()
