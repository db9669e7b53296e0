"""Published weights of torchvision and timm: fetched once into those libraries' caches, checked, never unpickled."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from automl_pt.errors import AutomlError, WeightsError
from automl_pt.files import atomic_file, sha256_file
from automl_pt.weights import read_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

#: seconds without a byte after which a download is given up
TIMEOUT = 20.0
_CHUNK = 1 << 20
#: torchvision's files end in the first digits of their SHA-256
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.")


def torchvision_weights(name: str) -> dict[str, Tensor]:
    """Return the tensors of torchvision's default weights of `name`, from torch.hub's cache or the network.

    Raises WeightsError, naming the file that is needed, when neither has them or the file is damaged.
    """
    import torch
    from torchvision.models import get_model_weights

    url = get_model_weights(name)["DEFAULT"].url
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if not path.exists():
        fetch(url, path)
    check_hash(path)
    return read_weights(path)


def timm_model(name: str, num_classes: int) -> nn.Module:
    """Return the timm model `name` with the weights timm names, from its cache or the network, and a head of its own.

    Raises WeightsError, naming the file that is needed, when neither has them.
    """
    import timm
    from timm.models import get_pretrained_cfg

    try:
        model: nn.Module = timm.create_model(name, pretrained=True, num_classes=num_classes)
    except AutomlError:
        raise
    except Exception as error:  # hub, URL, npz and checkpoint readers each raise their own
        place, file = _timm_file(get_pretrained_cfg(name))
        raise _absent(f"{file} in {place}", f"{type(error).__name__}: {str(error).splitlines()[0]}") from error
    return model


def fetch(url: str, path: Path) -> None:
    """Fetch `url` into `path` as a whole or not at all; raise WeightsError, naming `path`, when that cannot be done."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as source, atomic_file(path) as target:
            while chunk := source.read(_CHUNK):
                target.write(chunk)
    except (OSError, ValueError) as error:
        raise _absent(f"{path} (from {url})", f"{type(error).__name__}: {error}") from error


def check_hash(path: Path) -> None:
    """Compare a file with the digits of its SHA-256 in its name; raise WeightsError when they differ."""
    named = _HASH_IN_NAME.search(path.name)
    if named and not sha256_file(path).startswith(named[1]):
        raise WeightsError(
            "a file of weights must have the content its name promises",
            given=f"{path}: its SHA-256 does not start with {named[1]}",
            remedy="delete the file and run the same command again",
        )


def _timm_file(config: Any) -> tuple[str, str]:
    """Return the folder and the name of the file that timm looks for."""
    import torch
    from huggingface_hub.constants import HF_HUB_CACHE

    if config.hf_hub_id:
        name = config.hf_hub_filename or "model.safetensors"
        return str(Path(HF_HUB_CACHE) / f"models--{config.hf_hub_id.replace('/', '--')}"), name
    return str(Path(torch.hub.get_dir()) / "checkpoints"), Path(urlparse(str(config.url)).path).name


def _absent(file: str, reason: str) -> WeightsError:
    return WeightsError(
        "pretrained weights must be in the cache or on the network",
        given=f"{file}: {reason}",
        remedy="run it once where there is a network, copy the file to that place, or give it with --weights",
    )
