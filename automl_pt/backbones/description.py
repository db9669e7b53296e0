"""Describes all of a network but the values of its tensors, to tell whether two are alike, or one has changed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

#: what is compared elsewhere, or set again before each use
_OTHERS = {"_parameters", "_buffers", "_modules", "training"}
_EXACT = {bool, int, float, str, type(None), torch.Size}
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type, range, torch.dtype, torch.device, torch.layout)


def description(model: nn.Module) -> object | None:
    """Return a value that is equal for two networks of which one can stand for the other once it has its tensors.

    It holds the name, class and attributes of each module, and the shape and format of each tensor. None where an
    attribute can hide a state: a tensor that is not registered, or an object of a class that is not known here.
    """
    try:
        modules = [(name, type(module), _attributes(module)) for name, module in model.named_modules()]
    except _UnknownError:
        return None
    return modules, [(name, tensor.shape, tensor.dtype, tensor.requires_grad) for name, tensor in _named(model)]


def are_alike(first: object, second: object) -> bool:
    """Return whether two values, such as backbones, are one, or equal in all that they consist of."""
    try:
        return first is second or _plain(first) == _plain(second)
    except _UnknownError:
        return False


def tensors_of(model: nn.Module) -> list[Tensor]:
    """Return the parameters and buffers of a network, in one order for all that are alike."""
    return [tensor for _, tensor in _named(model)]


class _UnknownError(Exception):
    """An attribute is of a class that may hide a state."""


def _named(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def _attributes(module: nn.Module) -> Mapping[str, object]:
    return {name: _plain(value) for name, value in vars(module).items() if name not in _OTHERS}


def _plain(value: Any) -> object:
    """Return what is equal for equal values alone, with their classes, because True equals 1."""
    kind: Any = type(value)
    if kind in _EXACT:
        return kind, value
    if isinstance(value, dict) and not value:  # most modules have a dozen dictionaries of hooks, all empty
        return kind
    if isinstance(value, Mapping):
        return kind, [(_plain(key), _plain(inner)) for key, inner in value.items()]
    if isinstance(value, list | tuple):
        return kind, [_plain(inner) for inner in value]
    if isinstance(value, set | frozenset):
        return kind, {_hashable(inner) for inner in value}
    if isinstance(value, functools.partial):
        return kind, _plain(value.func), _plain(value.args), _plain(value.keywords)
    if is_dataclass(value) and not isinstance(value, type):
        return kind, [_plain(getattr(value, one.name)) for one in fields(value)]
    if isinstance(value, _PLAIN) or _has_no_state(value):
        return kind, value
    raise _UnknownError


def _hashable(value: Any) -> object:
    if not isinstance(value, _PLAIN):
        raise _UnknownError
    return type(value), value


def _has_no_state(value: Callable[..., Any]) -> bool:
    if isinstance(value, BuiltinFunctionType):
        return not isinstance(value.__self__, Tensor | nn.Module)
    return isinstance(value, FunctionType) and not value.__closure__
