import torch

from automl_pt import Augmentation, hookimpl


def build(side):
    """Return a function of one image uint8[3, S, S], which draws from torch alone."""

    def negative(image):
        return 255 - image if torch.rand(()) < 0.1 else image

    return negative


@hookimpl
def register_augmentations():
    return [Augmentation("acme-negative", build, description="every tenth image as a negative")]
