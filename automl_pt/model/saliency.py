"""Shows which image areas support a class: Grad-CAM (Selvaraju et al., 2017, arXiv 1610.02391).

The last feature map is averaged over its channels, each weighted by the gradient of the class's logit; negative values
are set to zero. Where the last map is less than `MIN_SIDE` wide, as at small image sizes, there is no picture: so
coarse a map shows no place, and an earlier layer does not decide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from automl_pt.core.out_of_memory import is_out_of_memory

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from automl_pt.model.load import Model

MIN_SIDE = 4


@dataclass(frozen=True)
class GradCam:
    """Maps float32[B, h, w] from 0 to 1, one per image; `layer` is the module of the feature map."""

    maps: NDArray[np.float32]
    layer: str


def grad_cam(model: Model, pixels: NDArray[np.uint8], classes: NDArray[np.int64]) -> GradCam | str:
    """Return the areas of pixels uint8[B, 3, S, S] that support classes int64[B], or why the network gives no map.

    If memory runs out fewer images are processed at a time, as in `Model.forward`.
    """
    layers, reasons = list[str](), list[str]()

    def some(places: Tensor) -> Tensor:
        found = _grad_cam(model, pixels[places.numpy()], classes[places.numpy()])
        if isinstance(found, str):
            reasons.append(found)
            return torch.empty(0)
        layers.append(found.layer)
        return torch.from_numpy(found.maps)

    maps = model.micro_batch(some, torch.arange(len(pixels)))
    return reasons[0] if reasons else GradCam(maps.numpy(), layers[0])


def _grad_cam(model: Model, pixels: NDArray[np.uint8], classes: NDArray[np.int64]) -> GradCam | str:
    with _Recorder(model.network) as recorder, torch.enable_grad():
        images = model.info.preprocessing.normalise(torch.from_numpy(pixels).to(model.device))
        # the input needs a gradient even if all parameters are frozen
        logits = model.network(images.requires_grad_())
    found = recorder.found
    if found is None:
        return recorder.reason
    layer, features = found
    score = logits[torch.arange(len(classes)), torch.from_numpy(classes).to(model.device)].sum()
    try:
        (gradient,) = torch.autograd.grad(score, features)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        return f"the gradient does not reach the feature map of {layer}: {error}"
    return GradCam(_maps(features.detach().float(), gradient.float()), layer)


class _Recorder:
    """Records the last feature map that passes through a network while the block is open."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.found: tuple[str, Tensor] | None = None
        self.reason = f"the network has no feature map of {MIN_SIDE} x {MIN_SIDE} or more"

    def __enter__(self) -> _Recorder:
        modules = [(name, module) for name, module in self.network.named_modules() if name]
        self.hooks = [module.register_forward_hook(self._hook(name)) for name, module in modules]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def _hook(self, name: str):  # type: ignore[no-untyped-def]  # torch's own type of a hook is no help
        def keep(module: nn.Module, inputs: object, output: object) -> None:
            if not isinstance(output, Tensor) or not output.requires_grad:
                return
            if output.ndim == 3 and output.shape[1] > 1:
                # maps before tokens come from the patch embedding, not from the network's features
                self.found, self.reason = None, f"the network works on tokens ({name}), not on a map of features"
            elif output.ndim == 4 and min(_sides(output)) > 1:  # a map of one point is a pooled one
                height, width = _sides(output)
                is_large = min(height, width) >= MIN_SIDE
                self.found = (name, output) if is_large else None
                self.reason = f"its last feature map is only {height} x {width}, which shows no place"

        return keep


def _sides(features: Tensor) -> tuple[int, int]:
    return (
        (features.shape[1], features.shape[2]) if _channels_last(features) else (features.shape[2], features.shape[3])
    )


def _channels_last(features: Tensor) -> bool:
    """Return whether features are [B, h, w, C], as in some transformers: images are square, so that h equals w."""
    return features.shape[1] == features.shape[2] != features.shape[3]


def _maps(features: Tensor, gradient: Tensor) -> NDArray[np.float32]:
    if _channels_last(features):
        features, gradient = features.permute(0, 3, 1, 2), gradient.permute(0, 3, 1, 2)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    maps = (weights * features).sum(dim=1).clamp(min=0)
    highest = maps.amax(dim=(1, 2), keepdim=True)
    result: NDArray[np.float32] = (maps / highest.clamp(min=torch.finfo(maps.dtype).tiny)).cpu().numpy()
    return result
