"""From a registered optimiser to one that a step drives: the documented SGD, or a library's behind the same face."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from automl_pt.core.errors import PluginError
from automl_pt.plugins.faults import plugins_fault
from automl_pt.training.sgd import SGD

if TYPE_CHECKING:
    from automl_pt.config import TrainConfig
    from automl_pt.optimizer import Optimizer

#: what a step asks of what `Optimizer.build` returns
_NEEDED = ("step", "param_groups", "state", "state_dict", "load_state_dict")


class LibraryOptimizer:
    """Drives an optimiser of a library as `SGD` is driven: the rate is set before a step, `scales` are factors on it.

    `decays` says which parameters the weight decay holds for. One that can be recorded takes its memory when it is
    made, because a recorded graph goes on writing where it wrote when it was recorded.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        parameters: Sequence[Tensor],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        scales: Sequence[float] = (),
        decays: Sequence[bool] = (),
    ) -> None:
        assert optimizer.build is not None
        self.parameters, self.name = list(parameters), optimizer.name
        kinds = zip(scales or [1.0] * len(self.parameters), decays or [True] * len(self.parameters), strict=True)
        groups: dict[tuple[float, bool], list[Tensor]] = {}
        for parameter, kind in zip(self.parameters, kinds, strict=True):
            groups.setdefault(kind, []).append(parameter)
        self.scales = [scale for scale, _ in groups]
        given = [
            {"params": members, "lr": lr * scale, "weight_decay": weight_decay if decays_here else 0.0}
            for (scale, decays_here), members in groups.items()
        ]
        with plugins_fault("an optimiser's build(groups, momentum) failed", whose=optimizer.name):
            self.inner = optimizer.build(given, momentum)
        _require_optimizer(self.inner, optimizer, len(given))
        if optimizer.averages:
            self.inner.train()
        self.averages, self.capturable = optimizer.averages, optimizer.capturable
        if self.capturable:
            self._take_memory()
        self.lr = lr

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Return the groups, whose gradients a scaler of fp16 looks through."""
        found: list[dict[str, Any]] = self.inner.param_groups
        return found

    @property
    def lr(self) -> float | Tensor:
        """Return the learning rate, of parameters whose factor is 1."""
        return self._lr

    @lr.setter
    def lr(self, lr: float | Tensor) -> None:
        self._lr = lr
        for group, scale in zip(self.inner.param_groups, self.scales, strict=True):
            group["lr"] = lr if scale == 1 else lr * scale

    def step(self) -> None:
        """Update the parameters from their gradients."""
        with plugins_fault("an optimiser's step() failed", whose=self.name):
            self.inner.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return the optimiser's own state, of the weights that are trained."""
        found: dict[str, Any] = self.inner.state_dict()
        return found

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what `state_dict` returned."""
        self.inner.load_state_dict(state)

    def tensors(self) -> list[Tensor]:
        """Return the tensors of the state; of an optimiser that can be recorded always the same ones."""
        found = (self.inner.state.get(parameter, {}) for parameter in self.parameters)
        return [value for state in found for value in state.values() if isinstance(value, Tensor)]

    def remember(self) -> Callable[[], None]:
        """Return what puts the state back as it is now: tensors in place, so that a recorded graph still has them."""
        values = [{key: value for key, value in group.items() if key != "params"} for group in self.inner.param_groups]
        groups = deepcopy(values)
        states = {parameter: _copied(state) for parameter, state in self.inner.state.items()}

        def put_back() -> None:
            for group, before in zip(self.inner.param_groups, groups, strict=True):
                group.update(before)
            for parameter in list(self.inner.state):
                if parameter not in states:
                    del self.inner.state[parameter]
                    continue
                _put_back(self.inner.state[parameter], states[parameter])

        return put_back

    @torch.no_grad()
    def average_into(self, targets: Sequence[Tensor]) -> None:
        """Write the averaged weights into `targets`, in the parameters' order; what is trained stays bit for bit."""
        trained = [parameter.detach().clone() for parameter in self.parameters]
        self.inner.eval()
        for target, parameter in zip(targets, self.parameters, strict=True):
            target.copy_(parameter)
        self.inner.train()
        for parameter, before in zip(self.parameters, trained, strict=True):
            parameter.copy_(before)

    @torch.no_grad()
    def _take_memory(self) -> None:
        """Let the optimiser make its state by a step that changes nothing, and set it to zero."""
        before = [parameter.detach().clone() for parameter in self.parameters]
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)
        self.lr = 0.0
        self.step()
        self.zero_grad()
        for parameter, value in zip(self.parameters, before, strict=True):
            parameter.copy_(value)
        for state in self.inner.state.values():
            for value in state.values():
                if isinstance(value, Tensor):
                    value.zero_()


def make_optimizer(
    optimizer: Optimizer | None,
    trained: Mapping[str, Tensor],
    config: TrainConfig,
    lr_scales: Mapping[str, float] | None,
) -> SGD | LibraryOptimizer:
    """Make the optimiser of parameters by their names; `optimizer` None is the documented SGD.

    With `weight_decay_on="weights"` biases and the scales of normalisation, which have one dimension, do not decay.
    """
    if (optimizer.name if optimizer is not None else "sgd") != config.optimizer:
        raise AssertionError(f"the optimiser {config.optimizer!r} was not looked up")
    settings: dict[str, Any] = {
        "lr": config.lr,
        "momentum": config.momentum,
        "weight_decay": config.weight_decay,
        "scales": [lr_scales[name] for name in trained] if lr_scales else (),
        "decays": [value.dim() > 1 for value in trained.values()] if config.weight_decay_on == "weights" else (),
    }
    parameters = list(trained.values())
    if optimizer is None or optimizer.build is None:
        return SGD(parameters, **settings)
    return LibraryOptimizer(optimizer, parameters, **settings)


def _require_optimizer(inner: object, optimizer: Optimizer, groups: int) -> None:
    needed = (*_NEEDED, *(("eval", "train") if optimizer.averages else ()))
    absent = [name for name in needed if not hasattr(inner, name)]
    if absent or len(getattr(inner, "param_groups", ())) != groups:
        came = f"without {', '.join(absent)}" if absent else "with other parameter groups than it was given"
        raise PluginError(
            "an optimiser's build(groups, momentum) returns a torch.optim.Optimizer of these groups",
            given=f"{optimizer.name}: {type(inner).__name__}, {came}",
            remedy="correct the plugin, or take another --optimizer",
        )


def _copied(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value.clone() if isinstance(value, Tensor) else deepcopy(value) for key, value in state.items()}


@torch.no_grad()
def _put_back(state: dict[str, Any], before: Mapping[str, Any]) -> None:
    for key in [key for key in state if key not in before]:
        del state[key]
    for key, value in before.items():
        if isinstance(value, Tensor) and isinstance(state.get(key), Tensor) and state[key].shape == value.shape:
            state[key].copy_(value)
        else:
            state[key] = value
