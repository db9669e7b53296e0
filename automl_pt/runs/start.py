"""Decides where a network starts: from pretrained weights, a file, or random numbers, before anything is created."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from automl_pt.config import Settings, TrainConfig
from automl_pt.core.errors import ConfigError, WeightsError
from automl_pt.core.files import not_found
from automl_pt.core.text import printable
from automl_pt.data.find import hints_of
from automl_pt.dataset import Hints

if TYPE_CHECKING:
    from automl_pt.backbone import Backbone
    from automl_pt.plugins.manager import Plugins

T = TypeVar("T", bound=Settings)

#: datasets with smaller images are trained from scratch, unless the user or the dataset says otherwise
LOW_RESOLUTION = 64


@dataclass(frozen=True)
class Start:
    """What a backbone starts from, and a sentence with the reason."""

    backbone: str
    pretrained: bool
    text: str
    license: str | None = None
    #: size of the file to be fetched; 0 if it is here, None if its size is unknown
    download_bytes: int | None = 0
    #: None where its plugin does not say
    parameters: int | None = None


def starts_pretrained(settings: Settings, backbone: Backbone, hints: Hints) -> bool:
    """Return whether `backbone` starts from its pretrained weights: as requested, else by the hints, if it has any."""
    if settings.weights is not None:
        return False
    if settings.pretrained is not None:
        return settings.pretrained
    return backbone.has_pretrained and _suits(settings, hints)


def starts_from_weights(config: TrainConfig, plugins: Plugins) -> bool:
    """Return whether a run starts from trained weights: a given file's, or its backbone's."""
    if config.weights is not None or config.pretrained is not None:
        return config.starts_from_weights
    backbone = plugins.backbone(config.backbone, config.backbone_options)
    return starts_pretrained(config, backbone, hints_of(config.dataset, plugins))


def settled(settings: T, backbone: Backbone, hints: Hints) -> T:
    """Return the settings with `pretrained` true or false: as requested, else by `backbone` and the data's hints."""
    return settings.model_copy(update={"pretrained": starts_pretrained(settings, backbone, hints)})


def _suits(settings: Settings, hints: Hints) -> bool:
    if hints.pretrained is not None or hints.image_size is None:
        return hints.pretrained is not False
    return (settings.image_size or hints.image_size) >= LOW_RESOLUTION


def choose_start(settings: Settings, backbone: Backbone, plugins: Plugins) -> Start:
    """Return what `backbone` starts from, without fetching anything or listing images.

    Raises WeightsError if pretrained weights are requested and the backbone has none, or the given file is missing.
    """
    size = "" if backbone.parameters is None else f", {backbone.parameters / 1e6:.1f} M parameters"
    about, hints = f"{printable(backbone.name)}{size}", hints_of(settings.dataset, plugins)
    if settings.weights is not None:
        if not Path(settings.weights).exists():
            given = printable(settings.weights)
            raise WeightsError(not_found(settings.weights), given=given, remedy="check the path given to --weights")
        return Start(
            backbone.name, False, f"{about}, from {printable(settings.weights)}", parameters=backbone.parameters
        )
    if starts_pretrained(settings, backbone, hints):
        _require_weights(backbone)
        return _pretrained(backbone, about)
    text = f"{about}, random weights: {_why(settings, backbone)}"
    return Start(backbone.name, False, text, parameters=backbone.parameters)


def _why(settings: Settings, backbone: Backbone) -> str:
    if settings.pretrained is False:
        return "--from-scratch"
    if not backbone.has_pretrained:
        return "it has no pretrained ones"
    return "its images are small, so the dataset's hints ask for it (--pretrained overrides this)"


def _require_weights(backbone: Backbone) -> None:
    if not backbone.has_pretrained:
        raise WeightsError(
            f"{backbone.name} has no pretrained weights",
            given=f"pretrained weights of {backbone.name} were requested",
            remedy="remove the option, give a file with --weights, or choose one of `automl-pt backbones --pretrained`",
        )


def _pretrained(backbone: Backbone, about: str) -> Start:
    where, download = "loaded by its plugin", None
    if backbone.published is not None:
        download = 0 if backbone.published.cached() is not None else backbone.published.size()
        where = "on this machine" if download == 0 else f"downloads {megabytes(download)}"
    text = f"{about}, pretrained ({backbone.weights_license}; {where})"
    return Start(backbone.name, True, text, backbone.weights_license, download, backbone.parameters)


def megabytes(count: int | None) -> str:
    """Return a number of bytes in megabytes, in words."""
    return "an unknown size" if count is None else f"about {count / 1e6:.0f} MB"


def fetch_weights(starts: Sequence[Start], settings: Settings, plugins: Plugins, options: Sequence[str] = ()) -> None:
    """Fetch the pretrained weights of `starts` to this machine; raise WeightsError if one is not available.

    A plugin that does not say where its weights are builds its network instead, which fetches them or raises.
    """
    for start in starts:
        backbone = plugins.backbone(start.backbone, options)
        if not start.pretrained:
            continue
        if backbone.published is not None:
            _ = backbone.published.cached() or backbone.published.fetch()
        else:
            from automl_pt.backbones.build import build_model

            side = settings.image_size or hints_of(settings.dataset, plugins).image_size or backbone.image_size
            build_model(backbone, 2, side, pretrained=True, seed=0)


def bring(backbone: Backbone) -> Iterator[str]:
    """Fetch a backbone's pretrained weights to this machine, and yield notes before and after."""
    name = printable(backbone.name)
    _require_weights(backbone)
    published = backbone.published
    if published is None:
        from automl_pt.backbones.build import build_model

        build_model(backbone, 2, backbone.image_size, pretrained=True, seed=0)
        yield f"{name}: its plugin has its weights (licence {backbone.weights_license})"
        return
    path, verb = published.cached(), "is here already"
    if path is None:
        yield f"{name}: fetching {megabytes(published.size())}"
        path, verb = published.fetch(), "fetched"
    size = megabytes(path.stat().st_size)
    yield f"{name}: {verb}, {size} in {printable(path)} (licence {backbone.weights_license})"


def require_start_for_average(starts: Sequence[Start], settings: Settings) -> None:
    """Raise ConfigError if weights are to be averaged that did not start from the same ones."""
    if (
        getattr(settings, "average", None)
        and settings.weights is None
        and not any(start.pretrained for start in starts)
    ):
        rule = "average needs pretrained or weights: only trials that started from the same weights can be averaged"
        raise ConfigError([rule])
