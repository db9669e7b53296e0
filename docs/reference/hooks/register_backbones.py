from torch import nn

from automl_pt import Backbone, hookimpl


def build(num_classes, pretrained, image_size, dropout=0.1):
    """`image_size` is the side of the images; `dropout` is an option of one's own, searched below."""
    return nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(3 * image_size**2, num_classes))


def space(trial):
    """The options that a search adds to learning rate and batch size, in Optuna's words."""
    trial.suggest_float("dropout", 0.0, 0.5)


@hookimpl
def register_backbones():
    return [Backbone("acme/flat", build, image_size=16, min_image_size=4, search_space=space)]
