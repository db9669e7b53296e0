"""Networks of pytorchcv, by its own names; their last pooling, made for 224 px alone, is made to fit any size."""

from pytorchcv.model_provider import get_model
from torch import nn

from automl_pt import Backbone, hookimpl


def build(num_classes, pretrained, name="mobilenet_wd4"):
    model = get_model(name, pretrained=False, num_classes=num_classes)
    model.features.final_pool = nn.AdaptiveAvgPool2d(1)
    return model


@hookimpl
def register_backbones():
    choices = ["mobilenet_wd4", "shufflenetv2_wd2"]
    space = lambda trial: trial.suggest_categorical("name", choices)  # noqa: E731
    return [Backbone("pytorchcv/any", build, image_size=64, min_image_size=32, search_space=space)]
