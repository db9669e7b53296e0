"""A vision transformer of vit-pytorch."""

from vit_pytorch import ViT

from automl_pt import Backbone, hookimpl


def build(num_classes, pretrained, image_size):
    shape = {"dim": 64, "depth": 2, "heads": 4, "mlp_dim": 128}
    return ViT(image_size=image_size, patch_size=image_size // 8, num_classes=num_classes, **shape)


@hookimpl
def register_backbones():
    return [Backbone("vit-pytorch/tiny", build, image_size=32)]
