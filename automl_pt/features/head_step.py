"""One optimiser step of a linear head on features, with the gradient written out.

Autograd, which records each operation, takes most of the time of a step this small: with it a step of 16 images of
1,280 features takes about four times as long.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automl_pt.training.step import Step

if TYPE_CHECKING:
    from automl_pt.config import TrainConfig


class HeadStep(Step):
    """Updates the one linear layer of `model` from features float32[B, D] and labels int64[B].

    Loss, class weights, smoothing, clipping and optimiser are those of `Step`; the weights agree within rounding.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainConfig,
        *,
        device: torch.device,
        class_weights: Tensor | None = None,
        lr_scales: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(
            model, config, device=device, precision="fp32", class_weights=class_weights, lr_scales=lr_scales
        )
        self.weight, self.bias = _linear(model)
        classes = len(self.weight)
        weights = torch.ones(classes, device=device) if class_weights is None else class_weights
        #: of each label [classes, classes]: what the negative log-probability of each class is multiplied with
        self.targets = (1 - config.label_smoothing) * torch.diag(weights)
        self.targets += config.label_smoothing / classes * weights
        #: of each label [classes, 1]: the sum of its row, and its share in the mean
        self.sums, self.weights = self.targets.sum(1, keepdim=True), weights

    @torch.no_grad()
    def _gradients(self, images: Tensor, labels: Tensor) -> Tensor:
        logs = torch.log_softmax(F.linear(images, self.weight, self.bias), 1)
        targets, whole = self.targets[labels], self.weights[labels].sum()
        gradient = torch.addcmul(-targets, logs.exp(), self.sums[labels]).div_(whole)
        self.weight.grad = gradient.T @ images
        if self.bias is not None:
            self.bias.grad = gradient.sum(0)
        return -torch.dot(targets.view(-1), logs.view(-1)) / whole

    def _update(self) -> None:
        """Update the weights; in float32 no scaler is needed."""
        if self.config.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.config.clip_grad_norm)
        self.optimizer.step()


def _linear(model: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of the network's only linear layer."""
    (linear,) = (module for module in model.modules() if isinstance(module, nn.Linear))
    return linear.weight, linear.bias
