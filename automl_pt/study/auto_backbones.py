"""`--backbone auto`: the pretrained backbones whose weights are on this machine, for the probes to rank."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from automl_pt.config import AUTO, SearchConfig
from automl_pt.core.errors import ConfigError, WeightsError
from automl_pt.data.find import hints_of
from automl_pt.plugins.manager import load_plugins
from automl_pt.runs.start import starts_pretrained
from automl_pt.study.store.study_files import read_object

if TYPE_CHECKING:
    from automl_pt.backbone import Backbone
    from automl_pt.plugins.manager import Plugins

#: parameters of the largest backbone that is probed unless `max_params` says otherwise: a ResNet-50 has 25.6 million
MAX_PARAMS = 30_000_000
#: backbones that are probed at most, one pass over the images each; the largest ones within the limit are taken
MOST = 6


def with_backbones(config: SearchConfig, directory: Path, plugins: Plugins | None) -> tuple[SearchConfig, str]:
    """Return the settings with backbones in place of `auto`, and a sentence that names them.

    A study in `directory` keeps the backbones that it was started with. Raises WeightsError where no pretrained weights
    are on this machine, ConfigError where the dataset asks for random weights.
    """
    asked = read_object(directory / "study.json").get("asked")
    before = asked.get("backbones") if isinstance(asked, dict) else None
    if isinstance(before, list) and before:
        names, why = tuple(map(str, before)), "as the study was started"
    else:
        found = _found(config, plugins or load_plugins(config.plugins))
        names, why = tuple(backbone.name for backbone in found), "their weights are on this machine"
    others = tuple(name for name in config.backbones if name != AUTO)
    names = tuple(dict.fromkeys([*others, *names]))
    return config.model_copy(update={"backbones": names}), f"--backbone auto: {', '.join(names)}, because {why}"


def _found(config: SearchConfig, plugins: Plugins) -> list[Backbone]:
    """Return the backbones that are ranked, the smallest first."""
    present = list(_on_this_machine(config, plugins))
    if not present:
        raise WeightsError(
            "no backbone for --backbone auto: no pretrained weights that fit are on this machine",
            given=_limits(config),
            remedy="bring some here with `automl-pt fetch NAME...` (`automl-pt backbones --pretrained` lists names), "
            "raise the limits, or name backbones with --backbone",
        )
    hints = hints_of(config.dataset, plugins)
    found = [backbone for backbone in present if starts_pretrained(config, backbone, hints)]
    if not found:
        raise ConfigError(
            [
                f"backbones: auto compares pretrained backbones, but {config.dataset} asks for random weights; "
                "name a backbone, or give pretrained"
            ]
        )
    return sorted(found, key=_size)[-MOST:]


def _on_this_machine(config: SearchConfig, plugins: Plugins) -> Iterator[Backbone]:
    """Yield the backbones whose weights are here and which the limits allow; of several names of one file the first."""
    limit, files, registry = config.max_params or MAX_PARAMS, set[Path](), plugins.backbones()
    for name in registry:
        backbone = registry[name]
        least = backbone.image_size if backbone.min_image_size is None else backbone.min_image_size
        is_too_small = config.image_size is not None and config.image_size < least
        if not backbone.has_pretrained or backbone.published is None or _size(backbone) > limit or is_too_small:
            continue
        path = backbone.published.cached()
        if path is not None and path.resolve() not in files:
            files.add(path.resolve())
            yield backbone


def _size(backbone: Backbone) -> int:
    return backbone.parameters or 0


def _limits(config: SearchConfig) -> str:
    size = "" if config.image_size is None else f", images of {config.image_size} px"
    return f"at most {config.max_params or MAX_PARAMS:,} parameters{size}"
