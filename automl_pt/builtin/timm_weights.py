"""timm's published weights: from the hub's cache, or downloaded to it, and loaded from the file by timm's own code.

timm contacts the hub even for a cached file, which costs a minute of retries without a network. So the file is found
first, and passed to timm.
"""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import urlparse

from automl_pt.backbone import PublishedWeights
from automl_pt.builtin.figures import figures
from automl_pt.builtin.pretrained import TIMEOUT, absent, check_hash, fetch, reach
from automl_pt.core.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor, nn


def pretrained_model(name: str, num_classes: int, in_channels: int = 3) -> nn.Module:
    """Return the timm model `name` with the weights timm names for it and a new head.

    timm adapts the first kernels to other channels than RGB's three.

    Raises WeightsError, naming the required file, if neither cache nor network has them.
    """
    import timm

    config, path = _config(name), weights_file(name)
    overlay = {"file": str(path), "custom_load": bool(config.custom_load)}
    extra: dict[str, Any] = {} if in_channels == 3 else {"in_chans": in_channels}
    try:
        model: nn.Module = timm.create_model(
            name, pretrained=True, num_classes=num_classes, pretrained_cfg_overlay=overlay, **extra
        )
    except Exception as error:  # readers of npz, safetensors and checkpoints raise different types
        raise WeightsError(
            "the file of weights is damaged, or of another network",
            given=f"{path} for timm/{name}: {type(error).__name__}: {str(error).strip().splitlines()[0]}",
            remedy="delete the file and run the same command again",
        ) from error
    return model


def published(name: str, image_size: int) -> PublishedWeights:
    """Return how the weights of the timm model `name` are found, downloaded and measured: four bytes per parameter."""
    known = figures(name, image_size)
    size = None if known is None else 4 * known.parameters
    return PublishedWeights(partial(_cached, name), partial(weights_file, name), partial(_known, size))


def _known(size: int | None) -> int | None:
    return size  # no lambda, so that two descriptions of one backbone are equal


def weights_file(name: str) -> Path:
    """Return the file of the weights timm names for `name`, downloaded if it is not cached."""
    config = _config(name)
    return _hub_file(name, config) if config.hf_hub_id else _url_file(name, config)


def _config(name: str) -> Any:
    from timm.models import get_pretrained_cfg

    return get_pretrained_cfg(name)


def _cached(name: str) -> Path | None:
    config = _config(name)
    if config.hf_hub_id:
        return _in_hub_cache(config)
    if not config.url:
        return None
    path = _url_path(config)[1]
    return path if path.exists() else None


def hub_names(filename: str | None) -> Sequence[str]:
    """Return the names under which the hub may have the weights, the safest format first."""
    if filename is None or filename == "pytorch_model.bin":
        return ("model.safetensors", "pytorch_model.bin")
    if filename == "open_clip_pytorch_model.bin":
        return ("open_clip_model.safetensors", filename)
    return (filename.removesuffix(".bin") + ".safetensors", filename) if filename.endswith(".bin") else (filename,)


def _in_hub_cache(config: Any) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = config.hf_hub_id.partition("@")
    for name in hub_names(config.hf_hub_filename):
        cached = try_to_load_from_cache(repository, name, revision=revision or None)
        if isinstance(cached, str):
            return Path(cached)
    return None


def _hub_file(model: str, config: Any) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.constants import HF_HUB_CACHE, HF_HUB_OFFLINE

    cached = _in_hub_cache(config)
    if cached is not None:
        return cached
    repository, _, revision = config.hf_hub_id.partition("@")
    names = hub_names(config.hf_hub_filename)
    folder = Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    wanted = f"{names[0]} of {repository} in {folder}"
    if HF_HUB_OFFLINE:
        raise absent(f"timm/{model}", wanted, "HF_HUB_OFFLINE is set")
    try:
        name = _offered(repository, names, revision or None)
    except OSError as error:
        raise absent(f"timm/{model}", wanted, f"{type(error).__name__}: {error}") from error
    try:
        return Path(hf_hub_download(repository, name, revision=revision or None))
    except Exception as error:  # errors of the hub, of its HTTP library, and of the disk
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        raise absent(f"timm/{model}", wanted, reason) from error


def _offered(repository: str, names: Sequence[str], revision: str | None) -> str:
    """Ask the hub once which of `names` it has, so that without a network nothing waits for retries."""
    from huggingface_hub import hf_hub_url

    reach(hf_hub_url(repository, names[0], revision=revision))
    for name in names[:-1]:
        request = urllib.request.Request(hf_hub_url(repository, name, revision=revision), method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT):
                return name
        except HTTPError as error:
            error.close()
            if error.code != 404:
                return name  # refused here: the hub's own client, which has the user's token, reports the reason
    return names[-1]


def _url_path(config: Any) -> tuple[str, Path]:
    import torch

    url, name = config.url if isinstance(config.url, tuple | list) else (config.url, "")
    return url, Path(torch.hub.get_dir()) / "checkpoints" / (name or Path(urlparse(url).path).name)


def _url_file(model: str, config: Any) -> Path:
    url, path = _url_path(config)
    if not path.exists():
        fetch(url, path, f"timm/{model}")
    check_hash(path)
    return path


_BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+)\.(\w+)")
#: a name that only these networks have
_MARK = "_conv_stem.weight"
_OUTSIDE = {
    **{"_conv_stem": "conv_stem", "_bn0": "bn1"},
    **{"_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"},
}
_SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
#: the parts of a block with an expansion of its channels, and of one without
_INVERTED = {
    **{"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"},
    **{"_project_conv": "conv_pwl", "_bn2": "bn3", **_SQUEEZE},
}
_SEPARABLE = {
    **{"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"},
    **_SQUEEZE,
}


def timm_names(model: nn.Module, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return tensors of an EfficientNet of lukemelas/EfficientNet-PyTorch under timm's names; any others unchanged.

    These networks count their blocks from the first to the last; timm counts from the first of each stage.
    A name without a counterpart is kept, so that it appears among the misfits.
    """
    if _MARK not in tensors:
        return tensors
    blocks = [
        (f"blocks.{stage}.{position}", _INVERTED if hasattr(block, "conv_pwl") else _SEPARABLE)
        for stage, group in enumerate(getattr(model, "blocks", ()))
        for position, block in enumerate(group)
    ]
    return {_renamed(name, blocks): tensor for name, tensor in tensors.items()}


def _renamed(name: str, blocks: list[tuple[str, dict[str, str]]]) -> str:
    if found := _BLOCK.fullmatch(name):
        number, module, tensor = int(found[1]), found[2], found[3]
        if number < len(blocks) and module in blocks[number][1]:
            prefix, table = blocks[number]
            return f"{prefix}.{table[module]}.{tensor}"
        return name
    module, _, tensor = name.rpartition(".")
    return f"{_OUTSIDE[module]}.{tensor}" if module in _OUTSIDE else name
