"""EfficientNet-B0 of efficientnet_pytorch."""

from efficientnet_pytorch import EfficientNet

from automl_pt import Backbone, hookimpl


def build(num_classes, pretrained):
    return EfficientNet.from_name("efficientnet-b0", num_classes=num_classes)


@hookimpl
def register_backbones():
    return [Backbone("lukemelas/efficientnet-b0", build, image_size=64, min_image_size=32)]
