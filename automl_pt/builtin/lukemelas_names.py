"""EfficientNets of lukemelas/EfficientNet-PyTorch and derived packages: timm's networks under other names.

These count a network's blocks from its first to its last; timm counts from the first of each stage.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

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
    """Return tensors of such a network under the names in timm's `model`; any others unchanged.

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
