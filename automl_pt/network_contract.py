"""What a run asks of a plugin's network, each point told as the plugin's fault where it is not kept.

`build_model` asks what it can of one image in eval mode; `rehearse`, before the first epoch, of a few images in both
modes, on the run's device and in its number format.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automl_pt.blame import described
from automl_pt.errors import PluginError
from automl_pt.random_state import kept_random_state
from automl_pt.training.device import NumberFormat
from automl_pt.training.evaluation import autocast
from automl_pt.training.out_of_memory import is_out_of_memory

#: images in a rehearsal: more than one, and another number than the one that `build_model` tried
IMAGES = 3
_TAKES = (
    "a network takes float[B, 3, S, S] for any number of images B and returns logits float[B, classes], in both modes"
)
#: the parameters that this process has built networks with, by their addresses in Python
_known: WeakValueDictionary[int, nn.Parameter] = WeakValueDictionary()


def require_new(model: nn.Module, name: str) -> None:
    """Raise PluginError where a network shares parameters with one that was built before: it would go on from these."""
    parameters = list(model.parameters())
    if any(_known.get(id(parameter)) is parameter for parameter in parameters):
        raise PluginError(
            "a backbone's build() returned a network that it had returned before",
            given=f"{name}: it shares parameters with a network built earlier, so that trials would train the same one",
            remedy="make a new network in each call of build(); copy.deepcopy(model) of one that is kept is new",
        )
    for parameter in parameters:
        _known[id(parameter)] = parameter


def without_wrappers(model: nn.Module) -> nn.Module:
    """Return the network without DataParallel or torch.compile around it or its parts.

    A run chooses devices and processes itself, and what it compiles.
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
    # the class of what torch.compile returns has no public name
    name = "module" if parallel else "_orig_mod" if type(model).__name__ == "OptimizedModule" else None
    inner = getattr(model, name) if name is not None else None
    return inner if isinstance(inner, nn.Module) else None


def require_state_of_tensors(model: nn.Module, name: str) -> None:
    """Raise PluginError for state that a model directory cannot hold: it holds tensors, and nothing that is run."""
    odd = [f"{key} is {type(value).__name__}" for key, value in model.state_dict().items() if not _is_tensor(value)]
    if odd:
        raise PluginError(
            "a backbone's network keeps state that is no tensor",
            given=f"{name}: {', '.join(odd[:3])}",
            remedy="keep it in register_buffer(...), or let get_extra_state() return a tensor",
        )


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def take_logits(model: nn.Module, images: object, output: Any) -> Any:
    """Return the logits of a model that returns them within an object, as those of transformers do."""
    return output if isinstance(output, Tensor) else getattr(output, "logits", output)


def require_logits(output: Any, name: str, images: int, classes: int, mode: str) -> Tensor:
    """Return the logits in a network's output; raise PluginError where there are none of the right shape."""
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", output)
    if not isinstance(logits, Tensor):
        came = type(logits).__name__
    elif logits.shape != (images, classes) or not logits.is_floating_point():
        kind = "" if logits.is_floating_point() else f"{str(logits.dtype).removeprefix('torch.')} "
        came = f"{kind}{list(logits.shape)}"
    else:
        return logits
    raise PluginError(
        "a backbone's model must return logits [images, classes]",
        given=f"{name}: {came} for {images} image{'s' if images > 1 else ''} and {classes} classes, in {mode}",
        remedy="return one number for each class and image, in training mode as in eval mode",
    )


def fails(name: str, mode: str, images: int, size: int, error: BaseException) -> PluginError:
    """Return the error for a network whose forward or backward pass raised one."""
    many = f"{images} images" if images > 1 else "one image"
    return PluginError(
        f"the network of {name} failed in {mode}",
        given=f"{many} of {size} px, as float[{images}, 3, {size}, {size}]: {described(error)}",
        remedy=f"correct the plugin: {_TAKES}",
    )


def require_trainable(model: nn.Module, name: str) -> None:
    """Raise PluginError for a network without a parameter that is trained."""
    parameters = list(model.parameters())
    if any(parameter.requires_grad for parameter in parameters):
        return
    given = f"all {len(parameters)} parameters have requires_grad=False" if parameters else "it has no parameters"
    raise PluginError(
        "a backbone's network has nothing to train",
        given=f"{name}: {given}",
        remedy="leave requires_grad as it is; --freeze and --freeze-groups freeze parts of a network",
    )


def rehearse(
    model: nn.Module,
    name: str,
    classes: int,
    size: int,
    *,
    device: torch.device,
    precision: NumberFormat,
    channels_last: bool,
) -> None:
    """Pass a few random images through in eval and in training mode, and the gradients back; leave no trace.

    Raises PluginError for what a run would meet later, or worse, would not notice. Where memory runs out nothing is
    said: a run takes fewer images at once then.
    """
    require_trainable(model, name)
    _require_scalable(model, name, precision)
    drawn = torch.randn(IMAGES, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    images = drawn.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    was_training, before = model.training, [buffer.clone() for buffer in model.buffers()]
    try:
        with kept_random_state([device]), autocast(device, precision):
            _try_eval(model, name, classes, images)
            _try_training(model, name, classes, images)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    finally:
        model.train(was_training)
        _put_back(model.buffers(), before)
        model.zero_grad()


def _put_back(buffers: Iterable[Tensor], before: Iterable[Tensor]) -> None:
    with torch.no_grad():
        for buffer, value in zip(buffers, before, strict=False):
            if buffer.shape == value.shape:
                buffer.copy_(value)


def _try_eval(model: nn.Module, name: str, classes: int, images: Tensor) -> None:
    model.eval()
    with torch.inference_mode():
        logits = _forward(model, name, classes, images, "eval mode")
    _require_finite(logits, name, "eval mode")


def _try_training(model: nn.Module, name: str, classes: int, images: Tensor) -> None:
    mode = "training mode"
    model.train()
    logits = _forward(model, name, classes, images, mode)
    _require_finite(logits, name, mode)
    if not logits.requires_grad:
        raise PluginError(
            "the logits of a backbone's network do not depend on its parameters",
            given=f"{name}: no gradient comes from them, in training mode",
            remedy="leave detach(), no_grad() and tensors made of numbers out of its forward()",
        )
    labels = torch.arange(len(images), device=images.device) % classes
    try:
        F.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]  # PyTorch's own
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        raise fails(name, "the backward pass", len(images), images.shape[-1], error) from error


def _forward(model: nn.Module, name: str, classes: int, images: Tensor, mode: str) -> Tensor:
    try:
        output = model(images)
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        raise fails(name, mode, len(images), images.shape[-1], error) from error
    logits = require_logits(output, name, len(images), classes, mode)
    if logits is not output:  # in training mode alone: `build_model` has seen to the other
        model.register_forward_hook(take_logits)
    return logits


def _require_finite(logits: Tensor, name: str, mode: str) -> None:
    bad = int((~logits.isfinite()).sum())
    if bad:
        raise PluginError(
            "a backbone's network gives logits that are not finite, before any training",
            given=f"{name}: {bad} of {logits.numel()} are NaN or infinite for random images, in {mode}",
            remedy="look for divisions by zero and logarithms in its forward(), and for NaN in its weights",
        )


def _require_scalable(model: nn.Module, name: str, precision: NumberFormat) -> None:
    halves = [key for key, parameter in model.named_parameters() if parameter.dtype == torch.float16]
    if precision == "fp16" and halves:
        raise PluginError(
            "parameters in 16 bits cannot be trained in fp16, whose gradients are scaled",
            given=f"{name}: {', '.join(halves[:3])} is float16",
            remedy="give --precision fp32 or bf16, or keep the parameters in float32",
        )
