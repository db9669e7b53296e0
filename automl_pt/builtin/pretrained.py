"""torchvision's published weights: fetched once into torch.hub's cache, checked, read without running code."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.parse import urlparse

from automl_pt.errors import WeightsError
from automl_pt.files import atomic_file, sha256_file
from automl_pt.weights import read_weights

if TYPE_CHECKING:
    from torch import Tensor

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


def fetch(url: str, path: Path) -> None:
    """Fetch `url` into `path` as a whole or not at all; raise WeightsError, naming `path`, when that cannot be done."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as source, atomic_file(path) as target:
            while chunk := source.read(_CHUNK):
                target.write(chunk)
    except HTTPError as error:
        with error:  # it holds the connection
            raise absent(f"{path} (from {url})", str(error)) from error
    except (OSError, ValueError) as error:
        raise absent(f"{path} (from {url})", f"{type(error).__name__}: {error}") from error


def check_hash(path: Path) -> None:
    """Compare a file with the digits of its SHA-256 in its name; raise WeightsError when they differ."""
    named = _HASH_IN_NAME.search(path.name)
    if named and not sha256_file(path).startswith(named[1]):
        raise WeightsError(
            "a file of weights must have the content its name promises",
            given=f"{path}: its SHA-256 does not start with {named[1]}",
            remedy="delete the file and run the same command again",
        )


def absent(file: str, reason: str) -> WeightsError:
    """Return the error for weights that neither the cache nor the network has; `file` is where they should be."""
    return WeightsError(
        "pretrained weights must be in the cache or on the network",
        given=f"{file}: {reason}",
        remedy="run it once where there is a network and copy what that leaves there, or give a file with --weights",
    )
