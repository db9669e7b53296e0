"""Weights as people have them: the ways to read what a file holds as the tensors of one network.

A training program saves its state dict in an entry beside its epoch and optimiser. DataParallel puts `module.` before
every name, torch.compile `_orig_mod.`, and a Lightning module the name of its attribute. Each way reads one entry and
takes off one prefix. Whoever knows the network takes the first way that fits, and says what was taken off.
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

#: entries by what they usually hold, an average of the weights first, as timm prefers it; then any other entry
_ENTRIES = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema", "teacher"),
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "student"),
)
#: a checkpoint's entry may hold the state of a wrapper, which has an entry of its own
_DEPTH = 2
#: wrappers of PyTorch that may stand around any part of a network
_WRAPPER = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
#: a prefix is tried when it stands before at least this share of the names
_SHARE = 0.25
#: most parts of a prefix; module.model.backbone. has three
_PARTS = 6


@dataclass(frozen=True)
class GivenWeights:
    """Weights somebody gave: where they are, what is there, and the backbone where a model directory names it."""

    source: Path
    content: Mapping[str, Any]
    backbone: str | None = None


@dataclass(frozen=True)
class Reading:
    """One way to read a file: tensors by name, and what was taken off or left to come to them."""

    tensors: Mapping[str, Tensor]
    #: such as "state_dict"; empty where the file holds the tensors themselves
    entry: str = ""
    #: such as "module."
    prefix: str = ""
    #: entries beside the one that was read, and entries within it that hold no tensor
    others: tuple[str, ...] = ()
    #: tensors without the prefix
    outside: tuple[str, ...] = ()
    #: names from which a wrapper of PyTorch was taken off
    unwrapped: int = 0

    def said(self) -> Iterator[str]:
        """Say what was taken off, and what is not used, with counts."""
        if self.entry:
            yield f"the entry {self.entry!r} is read"
        if self.others:
            yield f"other entries not used, {len(self.others)}: {few(self.others)}"
        if self.unwrapped:
            yield f"a wrapper's name such as _orig_mod. is taken off {counted(self.unwrapped, 'name')}"
        if self.prefix:
            yield f"the prefix {self.prefix!r} is taken off {counted(len(self.tensors), 'name')}"
        if self.outside:
            yield f"tensors without that prefix not used, {len(self.outside)}: {few(self.outside)}"

    @property
    def way(self) -> str:
        """Return how the file was read, for a message; empty where nothing was taken off."""
        parts = [f"the entry {self.entry!r}"] if self.entry else []
        parts += [f"the prefix {self.prefix!r} taken off"] if self.prefix else []
        return " with ".join(parts)


def readings(content: Mapping[str, Any]) -> Iterator[Reading]:
    """Yield the ways to read a file's content, the one that takes least off first."""
    for entry, tensors, others in _entries(content):
        plain = {_WRAPPER.sub("", name): tensor for name, tensor in tensors.items()}
        unwrapped = sum(name not in tensors for name in plain)
        if len(plain) < len(tensors):  # two names became one: they are names of two networks
            plain, unwrapped = dict(tensors), 0
        for prefix in ("", *_prefixes(plain)):
            inside = {name.removeprefix(prefix): tensor for name, tensor in plain.items() if name.startswith(prefix)}
            outside = tuple(name for name in plain if not name.startswith(prefix))
            yield Reading(inside, entry, prefix, others, outside, unwrapped)


def _entries(content: Mapping[str, Any], way: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor], Any]]:
    """Yield what holds tensors by name: the way to it, its tensors, and the names of what is left beside it."""
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
    """Return the prefixes that many of the names have, the most frequent and shortest first."""
    found: Counter[str] = Counter()
    for name in tensors:
        parts = name.split(".")[:-1]
        found.update(".".join(parts[: end + 1]) + "." for end in range(min(len(parts), _PARTS)))
    least = _SHARE * len(tensors)
    return [
        prefix for prefix, count in sorted(found.items(), key=lambda item: (-item[1], len(item[0]))) if count >= least
    ]
