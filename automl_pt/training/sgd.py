"""Stochastic gradient descent: PyTorch's fused kernel, called without PyTorch's optimiser classes.

A class of `torch.optim` imports PyTorch's compiler when the first optimiser is created: 1.2 s of CPU time and 150 MB in
every worker process. And its kernel copies each channels_last weight: for a ResNet-18 it takes twice the time of this
one (benchmarks/own_kernels.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from automl_pt.core.out_of_memory import is_device_lost, is_out_of_memory


class SGD:
    """Nesterov momentum with L2 penalty, as in `torch.optim.SGD`; parameters without a gradient are skipped.

    All memory is taken when it is made, so that a step cannot run out of it. `lr` may be set before each step, to a
    number or, inside a captured graph, to a tensor; `scales` are factors on it, one for each parameter; `decays` says
    for which the penalty holds. `param_groups`, and taking the scale and the verdict on infinities from attributes set
    by it, is what `torch.amp.GradScaler` asks of an optimiser.
    """

    averages, capturable = False, True

    def __init__(
        self,
        parameters: Sequence[Tensor],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        scales: Sequence[float] = (),
        decays: Sequence[bool] = (),
    ) -> None:
        self.parameters = list(parameters)
        self.scales = list(scales) or [1.0] * len(self.parameters)
        self.decays = list(decays) or [True] * len(self.parameters)
        self.lr: float | Tensor = lr
        self.momentum, self.weight_decay = momentum, weight_decay
        self.buffers = [torch.zeros_like(parameter) for parameter in self.parameters] if momentum else []
        self.param_groups = [{"params": self.parameters}]
        #: why the fused kernel is not used; None if it is
        self.unfused = next(filter(None, map(fused_kernel_fails, {one.device for one in self.parameters})), None)
        self._step_supports_amp_scaling = self.unfused is None

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters from their gradients, unless the scaler found one that is not finite."""
        used = [index for index, parameter in enumerate(self.parameters) if parameter.grad is not None]
        kinds = list(zip(self.scales, self.decays, strict=True))
        for kind in sorted({kinds[index] for index in used}):
            self._step([index for index in used if kinds[index] == kind], *kind)

    def _step(self, used: list[int], scale: float, decays: bool) -> None:
        parameters = [self.parameters[index] for index in used]
        gradients = [grad for parameter in parameters if (grad := parameter.grad) is not None]
        buffers = [self.buffers[index] for index in used] if self.buffers else []
        weight_decay, lr = self.weight_decay if decays else 0.0, self.lr if scale == 1 else self.lr * scale
        if self.unfused is not None:
            same: dict[str, Any] = {"momentum": self.momentum, "dampening": 0.0, "nesterov": self.momentum > 0}
            same |= {"weight_decay": weight_decay, "lr": lr, "maximize": False, "foreach": False, "fused": False}
            sgd(parameters, gradients, buffers or [None] * len(used), **same)  # type: ignore[arg-type]  # lists are invariant
            return
        torch._fused_sgd_(
            *_as_they_lie(parameters, gradients, buffers),
            weight_decay=weight_decay,
            momentum=self.momentum,
            lr=lr,
            dampening=0.0,
            nesterov=self.momentum > 0,
            maximize=False,
            # buffers of zeros give the same as PyTorch's first step: the gradient itself
            is_first_step=False,
            grad_scale=getattr(self, "grad_scale", None),
            found_inf=getattr(self, "found_inf", None),
        )

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def begin_again(self) -> None:
        """Forget all steps."""
        self.zero_grad()
        for buffer in self.buffers:
            buffer.zero_()

    def tensors(self) -> list[Tensor]:
        """Return the tensors that a step changes, beside the parameters."""
        return self.buffers

    def remember(self) -> Callable[[], None]:
        """Return what puts the momentum back as it is now, in place."""
        saved = [buffer.clone() for buffer in self.buffers]
        return lambda: self.load_state_dict({"momentum": saved})

    def state_dict(self) -> dict[str, Any]:
        """Return the momentum of each parameter."""
        return {"momentum": self.buffers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for buffer, saved in zip(self.buffers, state["momentum"], strict=True):
            buffer.copy_(saved)


@cache
def fused_kernel_fails(device: torch.device) -> str | None:
    """Return why PyTorch's fused kernel does not work on a device, tried once on a single number; None if it does."""
    options: dict[str, Any] = {"weight_decay": 0.0, "momentum": 0.9, "lr": 0.1, "dampening": 0.0, "nesterov": True}
    one, gradient, buffer = (torch.zeros(1, device=device) for _ in range(3))
    try:
        torch._fused_sgd_([one], [gradient], [buffer], **options, maximize=False, is_first_step=False)
    except Exception as error:  # as PyTorch reports a missing kernel, which is no reason to end a run
        if is_device_lost(error) or is_out_of_memory(error):
            raise
        return str(error).splitlines()[0][:200]
    return None


def _as_they_lie(*lists: list[Tensor]) -> list[list[Tensor]]:
    """View channels_last weights, in all of the lists, in the order of their memory.

    The CPU kernel copies every tensor that is not contiguous, both ways: 0.7 of its time for a ResNet-18.
    """
    wanted = [all(map(_has_channels_last, same)) for same in zip(*filter(None, lists), strict=True)]
    return [
        [tensor.permute(0, 2, 3, 1) if viewed else tensor for tensor, viewed in zip(tensors, wanted, strict=False)]
        for tensors in lists
    ]


def _has_channels_last(tensor: Tensor) -> bool:
    return tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
