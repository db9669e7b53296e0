"""`automl-pt backbones`."""

from __future__ import annotations

import click

from automl_pt.cli.columns import print_columns
from automl_pt.cli.lookup import json_option, matching, plugin_option


@click.command("backbones")
@click.argument("pattern", required=False)
@plugin_option
@json_option
def command(pattern: str | None, plugins: tuple[str, ...], as_json: bool) -> None:
    """List the networks that can be trained.

    PATTERN is a glob ('timm/vit_*') or a part of the name ('densenet'). A timm model with its tag, as in
    timm/resnet18.a1_in1k, is the same network with those pretrained weights.
    """
    from automl_pt.errors import UnknownNameError
    from automl_pt.files import to_json
    from automl_pt.plugins import load_plugins

    registry = load_plugins(plugins).backbones()
    names = matching(pattern, registry)
    if not names:
        remedy = "`automl-pt backbones` lists all of them"
        raise UnknownNameError("backbone", pattern or "", list(registry), remedy=remedy)
    rows = [
        {
            "name": backbone.name,
            "image_size": backbone.image_size,
            "pretrained": backbone.has_pretrained,
            "license": backbone.weights_license if backbone.has_pretrained else None,
        }
        for backbone in map(registry.__getitem__, names)
    ]
    if as_json:
        click.echo(to_json(rows, indent=2))
        return
    cells = [(r["name"], r["image_size"], "yes" if r["pretrained"] else "no", r["license"] or "-") for r in rows]
    print_columns(("name", "image size", "pretrained", "licence of the weights"), cells)
