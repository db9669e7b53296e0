"""Checks the contract of a plugin's network, and reports each violation as the plugin's fault.

`build_model` checks one image in eval mode; `rehearse`, before the first epoch, checks a few images in both modes, on
the run's device and in its number format.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakValueDictionary

from torch import Tensor, nn

from automl_pt.core.errors import PluginError
from automl_pt.plugins.faults import described

_TAKES = (
    "a network takes float[B, 3, S, S] for any number of images B and returns logits float[B, classes], in both modes"
)
#: the parameters of all networks that this process has built, by id
_known: WeakValueDictionary[int, nn.Parameter] = WeakValueDictionary()


def require_new(model: nn.Module, name: str) -> None:
    """Raise PluginError if a network shares parameters with an earlier one, because training would start from these."""
    parameters = list(model.parameters())
    if any(_known.get(id(parameter)) is parameter for parameter in parameters):
        raise PluginError(
            "a backbone's build() returned a network that it had returned before",
            given=f"{name}: it shares parameters with an earlier network, so that trials would train the same one",
            remedy="create a new network in each call of build(), for example by copy.deepcopy(model)",
        )
    for parameter in parameters:
        _known[id(parameter)] = parameter


def without_wrappers(model: nn.Module) -> nn.Module:
    """Return the network without DataParallel or torch.compile around it or its parts.

    A run chooses devices, processes and compilation itself.
    """
    while (inner := _wrapped(model)) is not None:
        model = inner
    for name, child in list(model.named_children()):
        plain = without_wrappers(child)
        if plain is not child:
            setattr(model, name, plain)
    return model


def _wrapped(model: nn.Module) -> nn.Module | None:
    parallel = isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel)
    # the class that torch.compile returns has no public name
    name = "module" if parallel else "_orig_mod" if type(model).__name__ == "OptimizedModule" else None
    inner = getattr(model, name) if name is not None else None
    return inner if isinstance(inner, nn.Module) else None


def require_state_of_tensors(model: nn.Module, name: str) -> None:
    """Raise PluginError for state that is not a tensor, because a model directory stores tensors only."""
    odd = [f"{key} is {type(value).__name__}" for key, value in model.state_dict().items() if not _is_tensor(value)]
    if odd:
        raise PluginError(
            "a backbone's network keeps state that is not a tensor",
            given=f"{name}: {', '.join(odd[:3])}",
            remedy="keep it in register_buffer(...), or let get_extra_state() return a tensor",
        )


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def take_logits(model: nn.Module, images: object, output: Any) -> Any:
    """Return the logits of a model that returns them within an object, like those of transformers."""
    return output if isinstance(output, Tensor) else getattr(output, "logits", output)


def require_logits(output: Any, name: str, images: int, classes: int, mode: str) -> Tensor:
    """Return the logits in a network's output; raise PluginError if there are none of the right shape."""
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", output)
    if not isinstance(logits, Tensor):
        came = type(logits).__name__
    elif logits.shape != (images, classes) or not logits.is_floating_point():
        kind = "" if logits.is_floating_point() else f"{str(logits.dtype).removeprefix('torch.')} "
        came = f"{kind}{list(logits.shape)}"
    else:
        return logits
    raise PluginError(
        "a backbone's model does not return logits [images, classes]",
        given=f"{name}: {came} for {images} image{'s' if images > 1 else ''} and {classes} classes, in {mode}",
        remedy="return one number per class and image, in training mode and in eval mode",
    )


def fails(name: str, mode: str, shape: Sequence[int], error: BaseException) -> PluginError:
    """Return the error for a network whose forward or backward pass failed on images of this shape."""
    many = f"{shape[0]} images" if shape[0] > 1 else "one image"
    return PluginError(
        f"the network of {name} failed in {mode}",
        given=f"{many} of {shape[-1]} px, as float{list(shape)}: {described(error)}",
        remedy=f"correct the plugin: {_TAKES}",
    )


def require_trainable(model: nn.Module, name: str) -> None:
    """Raise PluginError for a network without trainable parameters."""
    parameters = list(model.parameters())
    if any(parameter.requires_grad for parameter in parameters):
        return
    given = f"all {len(parameters)} parameters have requires_grad=False" if parameters else "it has no parameters"
    raise PluginError(
        "a backbone's network has no trainable parameters",
        given=f"{name}: {given}",
        remedy="leave requires_grad unchanged; --freeze and --freeze-groups freeze parts of a network",
    )
