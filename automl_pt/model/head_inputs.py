"""The features of an image: what enters the last linear layer of a network, or of each member of an ensemble."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from automl_pt.backbone import Backbone
from automl_pt.backbones.build import head_modules
from automl_pt.backbones.weights import in_modules


class HeadInputs:
    """Keeps what enters the given linear layers, for the thread that runs the network, while it is asked to."""

    def __init__(self, heads: Sequence[nn.Linear]) -> None:
        self.heads = tuple(heads)
        self._of_thread = threading.local()
        self._lock = threading.Lock()
        self._has_hooks = False

    @contextmanager
    def kept(self) -> Iterator[list[Tensor]]:
        """Yield a list that receives the input of each layer, in the order of the calls."""
        with self._lock:
            if not self._has_hooks:  # only now, because an exporter would trace a hook
                for head in self.heads:
                    head.register_forward_pre_hook(self._keep)
                self._has_hooks = True
        found: list[Tensor] = []
        self._of_thread.found = found
        try:
            yield found
        finally:
            self._of_thread.found = None

    def _keep(self, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        found: list[Tensor] | None = getattr(self._of_thread, "found", None)
        if found is not None:
            found.append(given[0])

    def joined(self, found: Sequence[Tensor], images: int) -> Tensor | None:
        """Return the inputs as one float32[N, D], each layer's scaled to length 1; None if they are not vectors."""
        vectors = [one for one in found if one.ndim == 2 and len(one) == images]
        if not self.heads or len(vectors) != len(found) or len(found) != len(self.heads):
            return None
        return torch.cat([nn.functional.normalize(one.float(), dim=1) for one in vectors], dim=1)

    @property
    def dimensions(self) -> int:
        """Return the length of an image's features; 0 if the networks have no such layers."""
        return sum(head.in_features for head in self.heads)


def head_inputs(networks: Sequence[nn.Module], backbones: Sequence[Backbone]) -> HeadInputs:
    """Find the last linear layer of each network's head; if one has none, there are no features."""
    heads = []
    for network, backbone in zip(networks, backbones, strict=True):
        names = head_modules(network, backbone)
        linear = [
            module
            for name, module in network.named_modules()
            if isinstance(module, nn.Linear) and (name in names or in_modules(name, names))
        ]
        heads += linear[-1:]
    return HeadInputs(heads if len(heads) == len(networks) else ())
