"""The ways to read a file of weights as the tensors of one network.

A training program saves its state dict in an entry beside its epoch and optimiser. DataParallel puts `module.` before
every name, torch.compile `_orig_mod.`, and a Lightning module the name of its attribute. Each reading uses one entry
and removes one prefix. The caller, who knows the network, uses the first that fits, and reports what was removed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_pt.core.text import counted, few

if TYPE_CHECKING:
    from torch import Tensor

#: usual entries in order of preference, with averaged weights first as in timm; then any other entry
_ENTRIES = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema", "teacher"),
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "student"),
)
#: nesting of entries: a checkpoint's entry may hold a wrapper's state, which has an entry of its own
_DEPTH = 2
#: PyTorch's wrappers, which may enclose any part of a network
_WRAPPER = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
#: a prefix is tried if at least this share of the names have it
_SHARE = 0.25
#: limit of the parts of a prefix; module.model.backbone. has three
_PARTS = 6


@dataclass(frozen=True)
class GivenWeights:
    """A user's weights: their source, their content, and the backbone if a model directory names it."""

    source: Path
    content: Mapping[str, Any]
    backbone: str | None = None


@dataclass(frozen=True)
class Reading:
    """One way to read a file: tensors by name, and what was removed or ignored to obtain them."""

    tensors: Mapping[str, Tensor]
    #: such as "state_dict"; empty if the file holds the tensors at its top level
    entry: str = ""
    #: such as "module."
    prefix: str = ""
    #: ignored entries: beside the one that was read, and entries within it without tensors
    others: tuple[str, ...] = ()
    #: tensors whose names lack the prefix
    outside: tuple[str, ...] = ()
    #: number of names that a wrapper of PyTorch was removed from
    unwrapped: int = 0

    def said(self) -> Iterator[str]:
        """Yield notes on what was removed and what is not used, with counts."""
        if self.entry:
            yield f"the entry {self.entry!r} is read"
        if self.others:
            yield f"other entries not used, {len(self.others)}: {few(self.others)}"
        if self.unwrapped:
            yield f"a wrapper's name such as _orig_mod. is removed from {counted(self.unwrapped, 'name')}"
        if self.prefix:
            yield f"the prefix {self.prefix!r} is removed from {counted(len(self.tensors), 'name')}"
        if self.outside:
            yield f"tensors without that prefix not used, {len(self.outside)}: {few(self.outside)}"

    @property
    def way(self) -> str:
        """Return how the file was read, for a message; empty if nothing was removed."""
        parts = [f"the entry {self.entry!r}"] if self.entry else []
        parts += [f"the prefix {self.prefix!r} removed"] if self.prefix else []
        return " with ".join(parts)


def readings(content: Mapping[str, Any]) -> Iterator[Reading]:
    """Yield the ways to read a file's content, the one that removes least first."""
    for entry, tensors, others in _entries(content):
        plain = {_WRAPPER.sub("", name): tensor for name, tensor in tensors.items()}
        unwrapped = sum(name not in tensors for name in plain)
        if len(plain) < len(tensors):  # two names became equal, so they belong to two networks
            plain, unwrapped = dict(tensors), 0
        for prefix in ("", *_prefixes(plain)):
            inside = {name.removeprefix(prefix): tensor for name, tensor in plain.items() if name.startswith(prefix)}
            outside = tuple(name for name in plain if not name.startswith(prefix))
            yield Reading(inside, entry, prefix, others, outside, unwrapped)


def _entries(content: Mapping[str, Any], way: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor], Any]]:
    """Yield each entry that holds tensors by name: its path, its tensors, and the names of the other entries."""
    import torch

    named = {name: value for name, value in content.items() if isinstance(name, str)}
    tensors = {name: value for name, value in named.items() if isinstance(value, torch.Tensor)}
    if tensors:
        yield way, tensors, tuple(str(name) for name in content if name not in tensors)
    if depth == _DEPTH:
        return
    ranks = {name: rank for rank, name in enumerate(_ENTRIES)}
    for name in sorted(named, key=lambda name: ranks.get(name, len(ranks))):
        if isinstance(named[name], Mapping):
            beside = tuple(str(other) for other in content if other != name)
            for inner, found, others in _entries(named[name], f"{way}.{name}" if way else name, depth + 1):
                yield inner, found, (*beside, *others)


def _prefixes(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the prefixes that many names have, the most frequent and shortest first."""
    found: Counter[str] = Counter()
    for name in tensors:
        parts = name.split(".")[:-1]
        found.update(".".join(parts[: end + 1]) + "." for end in range(min(len(parts), _PARTS)))
    least = _SHARE * len(tensors)
    return [
        prefix for prefix, count in sorted(found.items(), key=lambda item: (-item[1], len(item[0]))) if count >= least
    ]
