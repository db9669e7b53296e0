"""A backbone under test, built and with images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from automl_pt.backbone import Backbone
from automl_pt.backbones.build import build_model

FEW, MANY = 2, 7
#: images in a batch
BATCH = 3
#: side of the images for all checks, if the backbone accepts it
SMALL = 32


@dataclass(frozen=True)
class BackboneCase:
    """A backbone under test at one image size: built for MANY and for FEW classes, with a batch of images."""

    backbone: Backbone
    size: int
    model: nn.Module
    few: nn.Module
    images: Tensor

    def logits(self, model: nn.Module | None = None, images: Tensor | None = None) -> Tensor:
        """Pass images through a model without gradients; by default the case's own."""
        with torch.no_grad():
            logits: Tensor = (model or self.model)(self.images if images is None else images)
        return logits


def build(backbone: Backbone, size: int, seed: int = 1, *, classes: int = MANY, pretrained: bool = False) -> nn.Module:
    """Build the backbone in eval mode."""
    model = build_model(backbone, classes, size, pretrained=pretrained, seed=seed)
    model.eval()  # the plugin may return it in either mode
    return model


def make_case(backbone: Backbone, size: int) -> BackboneCase:
    """Build the backbone twice and draw a batch of images."""
    images = torch.randn(BATCH, 3, size, size, generator=torch.Generator().manual_seed(size))
    return BackboneCase(backbone, size, build(backbone, size), build(backbone, size, classes=FEW), images)
