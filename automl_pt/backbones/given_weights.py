"""Loads weights from a user's file into a network, in the first way of reading them that fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from automl_pt.backbones.first_convolution import adapt_tensors
from automl_pt.backbones.weight_readings import GivenWeights, Reading, readings
from automl_pt.backbones.weights import has_any, in_modules, load_tensors, misfit_error, misfits, read_content
from automl_pt.core.errors import WeightsError
from automl_pt.core.text import counted, few, printable

if TYPE_CHECKING:
    from torch import Tensor, nn

Convert = Callable[["nn.Module", Mapping[str, "Tensor"]], Mapping[str, "Tensor"]]


def load_given(
    model: nn.Module,
    given: GivenWeights | Path,
    backbone: str,
    heads: Sequence[str],
    convert: Convert | None,
    adapt: Callable[[nn.Module], nn.Module],
) -> tuple[nn.Module, bool, list[str]]:
    """Load weights into `model`, before or after it is adapted to the image size.

    Return the model, whether the weights contain its head, and notes.

    Published weights fit the network as published; those of a model trained at this size fit the adapted one.
    Raises WeightsError, naming the nearest way of reading them, if none fits.
    """
    given = given if isinstance(given, GivenWeights) else GivenWeights(given, read_content(given))
    ways = list(readings(given.content))
    if not ways:
        raise _no_tensors(given)
    published, nearest = _first_fit(model, ways, heads, convert)
    if published is not None:
        has_head, notes = _load(model, published, heads, convert, given)
        return adapt(model), has_head, notes
    adapted = adapt(model)
    trained, other = _first_fit(adapted, ways, heads, convert)
    if trained is None:
        way, found = min(nearest, other, key=lambda pair: len(pair[1]))
        raise misfit_error(given.source, backbone, found, way=way, of=given.backbone)
    return adapted, *_load(adapted, trained, heads, convert, given)


def _first_fit(
    model: nn.Module, ways: Sequence[Reading], heads: Sequence[str], convert: Convert | None
) -> tuple[Reading | None, tuple[str, list[str]]]:
    """Return the first reading that fits, or None; and the description of the nearest one with its misfits."""
    found: list[tuple[str, list[str]]] = []
    for reading in ways:
        tensors = _converted(model, reading.tensors, convert)
        wrong = misfits(model, tensors, heads)
        if not wrong and has_any(model, tensors):
            return reading, (reading.way, [])
        found.append((reading.way, wrong or ["none of its tensors is in the network"]))
    return None, min(found, key=lambda pair: len(pair[1]))


def _converted(model: nn.Module, tensors: Mapping[str, Tensor], convert: Convert | None) -> Mapping[str, Tensor]:
    return adapt_tensors(model, tensors if convert is None else convert(model, tensors))


def _load(
    model: nn.Module, reading: Reading, heads: Sequence[str], convert: Convert | None, given: GivenWeights
) -> tuple[bool, list[str]]:
    tensors = _converted(model, reading.tensors, convert)
    has_head = load_tensors(model, tensors, heads)
    renamed = len(tensors.keys() - reading.tensors.keys())
    notes = [*reading.said(), *([f"{renamed} names are translated to this network's"] if renamed else [])]
    notes += _of_the_channels(tensors, reading.tensors)
    notes += _of_the_head(model, tensors, heads, has_head=has_head)
    return has_head, [f"weights of {printable(given.source)}: {text}" for text in notes]


def _of_the_channels(tensors: Mapping[str, Tensor], read: Mapping[str, Tensor]) -> Iterator[str]:
    for name, tensor in tensors.items():
        if name in read and tensor.ndim == 4 and tensor.shape[1] != read[name].shape[1]:
            yield f"the kernels of {name} for RGB are adapted to {counted(tensor.shape[1], 'channel')}"


def _of_the_head(
    model: nn.Module, tensors: Mapping[str, Tensor], heads: Sequence[str], *, has_head: bool
) -> Iterator[str]:
    wanted = {name: tensor for name, tensor in model.state_dict().items() if in_modules(name, heads)}
    if has_head:
        if wanted:
            yield "the head is loaded too, because it has the same number of classes"
        return
    shapes = [
        f"{name} is {list(tensors[name].shape)}, not {list(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    yield f"the head is new: {few(shapes, 1)}" if shapes else "the head is new: the file has none for it"


def _no_tensors(given: GivenWeights) -> WeightsError:
    return WeightsError(
        "the file of weights holds no tensors by name",
        given=f"{printable(given.source)}: its entries are {few(given.content)}",
        remedy="save `model.state_dict()` in the original program, and give that file",
    )
