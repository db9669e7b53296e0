"""An image classifier of transformers, built from a configuration; it returns an object that holds the logits."""

from transformers import ResNetConfig, ResNetForImageClassification

from automl_pt import Backbone, hookimpl


def build(num_classes, pretrained):
    sizes = {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "layer_type": "basic"}
    return ResNetForImageClassification(ResNetConfig(num_labels=num_classes, **sizes))


@hookimpl
def register_backbones():
    return [Backbone("transformers/resnet", build, image_size=64, min_image_size=16)]
