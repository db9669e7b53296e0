"""`automl-pt backbones`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from automl_pt.cli.columns import print_columns
from automl_pt.cli.lookup import json_option, matching, plugin_option

if TYPE_CHECKING:
    from automl_pt.backbone import Backbone

_UNITS = {"k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}


class Count(click.ParamType[int]):
    """A whole number, or one with the unit K, M or G."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number without its unit."""
        text = str(value).lower()
        try:
            return round(float(text[:-1]) * _UNITS[text[-1]]) if text[-1:] in _UNITS else int(text)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a number of parameters, such as 5M or 300000", param, ctx)


@click.command("backbones")
@click.argument("pattern", required=False)
@click.option("--pretrained", is_flag=True, help="Only those with pretrained weights.")
@click.option("--cached", is_flag=True, help="Only those whose pretrained weights are on this machine.")
@click.option("--max-params", type=Count(), help="Only those known to have at most so many parameters, such as 5M.")
@click.option("--min-size", type=click.IntRange(1), help="Only those known to take images as small as this, in pixels.")
@plugin_option
@json_option
def command(
    pattern: str | None,
    pretrained: bool,
    cached: bool,
    max_params: int | None,
    min_size: int | None,
    plugins: tuple[str, ...],
    as_json: bool,
) -> None:
    """List the networks that can be trained.

    PATTERN is a glob ('timm/vit_*') or a part of the name ('densenet'). A timm model with its tag, as in
    timm/resnet18.a1_in1k, is the same network with those pretrained weights. Parameters and GFLOPs are those of the
    published network, of one image of its size; a multiplication with its addition counts as two. --cached imports
    torchvision and timm, which takes seconds. `automl-pt fetch NAME` downloads weights.
    """
    from automl_pt.core.errors import UnknownNameError
    from automl_pt.core.files import to_json
    from automl_pt.plugins.manager import load_plugins

    registry = load_plugins(plugins).backbones()
    found = map(registry.__getitem__, matching(pattern, registry))
    chosen = [b for b in found if _fits(b, pretrained=pretrained, max_params=max_params, min_size=min_size)]
    if cached:
        chosen = [b for b in chosen if b.published is not None and b.published.cached() is not None]
    if not chosen and cached:
        print_none_cached(as_json=as_json)
        return
    if not chosen:
        remedy = "`automl-pt backbones` lists all of them; remove a filter"
        raise UnknownNameError("backbone", pattern or "", list(registry), remedy=remedy)
    rows = list(map(_row, chosen))
    if as_json:
        click.echo(to_json(rows, indent=2))
        return
    header = ("name", "image size", "parameters", "GFLOPs", "pretrained", "licence of the weights")
    print_columns(
        header, list(map(_cells, rows)), drop=("licence of the weights", "GFLOPs", "image size", "pretrained")
    )


def print_none_cached(*, as_json: bool) -> None:
    """Print that there are no weights, which is a valid answer and not an error."""
    none = "no pretrained weights are on this machine; `automl-pt fetch NAME` downloads them"
    click.echo("[]" if as_json else none)


def _fits(backbone: Backbone, *, pretrained: bool, max_params: int | None, min_size: int | None) -> bool:
    """Return whether a backbone passes the filters; an unknown figure passes none."""
    least = backbone.min_image_size or backbone.image_size
    return (
        (backbone.has_pretrained or not pretrained)
        and (max_params is None or (backbone.parameters is not None and backbone.parameters <= max_params))
        and (min_size is None or least <= min_size)
    )


def _row(backbone: Backbone) -> dict[str, Any]:
    return {
        "name": backbone.name,
        "image_size": backbone.image_size,
        "min_image_size": backbone.min_image_size,
        "parameters": backbone.parameters,
        "gflops": backbone.gflops,
        "batch_norm": backbone.batch_norm,
        "pretrained": backbone.has_pretrained,
        "license": backbone.weights_license if backbone.has_pretrained else None,
        "sha256": backbone.weights_sha256 if backbone.has_pretrained else None,
    }


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    size = row["image_size"] if row["min_image_size"] is None else f"{row['min_image_size']}+ ({row['image_size']})"
    parameters = "-" if row["parameters"] is None else f"{row['parameters'] / 1e6:.1f} M"
    gflops = "-" if row["gflops"] is None else f"{row['gflops']:.1f}"
    return row["name"], size, parameters, gflops, "yes" if row["pretrained"] else "no", row["license"] or "-"
