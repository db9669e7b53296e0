"""Every timm model as `timm/NAME`, with and without the tag of its weights; lookups do not import timm.

timm takes seconds to import, so its registry's records are stored in the cache folder, one file per version of timm.
"""

from __future__ import annotations

import logging
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_pt.backbone import Backbone, Catalogue
from automl_pt.builtin.figures import figures
from automl_pt.builtin.timm_weights import published, timm_names
from automl_pt.core.errors import OutputError
from automl_pt.core.files import atomic_write, cache_folder, read_json, to_json
from automl_pt.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import nn

PREFIX = "timm/"
#: format of the file in the cache folder; to be increased when a record's fields change
FORMAT = 2

Record = dict[str, Any]
_log = logging.getLogger("automl_pt")


@hookimpl
def register_backbones() -> list[Catalogue]:
    """Register all timm models."""
    return [Catalogue(PREFIX, names, make)]


def names() -> list[str]:
    """List all timm models, with and without tag, as `timm/NAME`."""
    return sorted(PREFIX + name for name in _records())


def make(name: str) -> Backbone:
    """Return the backbone of the timm model `name` ("timm/..."); raise KeyError if there is none."""
    record = _records()[name.removeprefix(PREFIX)]
    model, native = name.removeprefix(PREFIX), record["image_size"]
    known = figures(name, native)
    return Backbone(
        name,
        partial(build, model),
        image_size=native,
        min_image_size=record["min_image_size"],
        mean=tuple(record["mean"]),
        std=tuple(record["std"]),
        has_pretrained=record["pretrained"],
        # some of timm's models do not state their weights' licence
        weights_license=record["license"] or ("not stated" if record["pretrained"] else None),
        published=published(model, native) if record["pretrained"] else None,
        adapt=partial(adapt, native),
        head=tuple(record["head"]) or None,
        recipe=partial(recipe, model, native),
        convert_weights=timm_names,
        param_groups=param_groups,
        parameters=known.parameters if known else None,
        gflops=known.gflops if known else None,
        batch_norm=known.batch_norm if known else None,
    )


def build(name: str, num_classes: int, pretrained: bool, in_channels: int = 3) -> nn.Module:
    """Build the timm model `name` with a head for `num_classes`; with `pretrained`, from the weights timm names."""
    import timm

    if pretrained:
        from automl_pt.builtin.timm_weights import pretrained_model

        return pretrained_model(name, num_classes, in_channels)
    extra: dict[str, Any] = {} if in_channels == 3 else {"in_chans": in_channels}
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes, **extra)
    return model


def adapt(native: int, model: nn.Module, image_size: int) -> nn.Module:
    """Set the image size of a model that is made for one size, such as a vision transformer."""
    set_input_size = getattr(model, "set_input_size", None)
    if image_size != native and set_input_size is not None:
        set_input_size(img_size=(image_size, image_size))
    return model


def param_groups(model: nn.Module) -> list[list[str]]:
    """Return timm's own groups, one per block if the model has blocks; its parameters' names from input to head."""
    from timm.models import group_parameters

    matcher = getattr(model, "group_matcher", None)
    if matcher is None:
        return [[name for name, _ in model.named_parameters()]]
    groups: dict[object, list[str]] = group_parameters(model, matcher(coarse=False))
    return [names for _, names in sorted(groups.items())]


def recipe(name: str, native: int, num_classes: int, image_size: int, in_channels: int = 3) -> str:
    """Return the lines that build the same network as `model` with timm only."""
    extra = "" if in_channels == 3 else f", in_chans={in_channels}"
    lines = ["import timm", f"model = timm.create_model({name!r}, num_classes={num_classes}{extra})"]
    if image_size != native:
        size = f"({image_size}, {image_size})"
        lines.append(f"if hasattr(model, 'set_input_size'): model.set_input_size(img_size={size})")
    return "\n".join(lines)


@cache
def _records() -> dict[str, Record]:
    path = cache_folder() / f"timm-{version('timm')}-{FORMAT}.json"
    return _read(path) or _write(path, _from_timm())


def _read(path: Path) -> dict[str, Record] | None:
    try:
        records = read_json(path)
    except (OSError, ValueError):  # missing or damaged: it is created again
        return None
    return records if isinstance(records, dict) and records else None


def _write(path: Path, records: dict[str, Record]) -> dict[str, Record]:
    try:
        atomic_write(path, to_json(records))
    except OutputError as error:
        _log.warning("names of timm models are not cached, and each command imports timm: %s", error.given)
    return records


def _from_timm() -> dict[str, Record]:
    from timm.models import get_pretrained_cfg, is_model_pretrained, list_models

    every = {*list_models(), *list_models(include_tags=True)}
    return {name: _record(get_pretrained_cfg(name), is_model_pretrained(name)) for name in sorted(every)}


def _record(config: Any, pretrained: bool) -> Record:
    head = config.classifier or ()
    return {
        "image_size": max(config.input_size[1:]),
        "min_image_size": max(config.min_input_size[1:]) if config.min_input_size else None,
        "mean": config.mean,
        "std": config.std,
        "pretrained": pretrained,
        "license": config.license,
        "head": [head] if isinstance(head, str) else list(head),
    }
