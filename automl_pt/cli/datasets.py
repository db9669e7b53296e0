"""`automl-pt datasets`."""

from __future__ import annotations

import click

from automl_pt.cli.columns import print_columns
from automl_pt.cli.lookup import json_option, matching, plugin_option


@click.command("datasets")
@click.argument("pattern", required=False)
@plugin_option
@json_option
def command(pattern: str | None, plugins: tuple[str, ...], as_json: bool) -> None:
    """List the datasets known by name. Your own folder, archive or table needs no name.

    PATTERN is a glob or a part of the name.
    """
    from automl_pt.core.errors import UnknownNameError
    from automl_pt.core.files import to_json
    from automl_pt.plugins.manager import load_plugins

    registry = load_plugins(plugins).datasets()
    names = matching(pattern, registry)
    if not names:
        remedy = "`automl-pt datasets` lists all of them"
        raise UnknownNameError("dataset", pattern or "", list(registry), remedy=remedy)
    rows = [
        {
            "name": dataset.name,
            "image_size": dataset.hints.image_size,
            "horizontal_flip": dataset.hints.horizontal_flip,
            "shift": dataset.hints.shift,
            "downloads": dataset.download is not None,
            "license": dataset.license,
            "description": dataset.description,
        }
        for dataset in map(registry.__getitem__, names)
    ]
    if as_json:
        click.echo(to_json(rows, indent=2))
        return
    cells = [(r["name"], "yes" if r["downloads"] else "no", r["license"] or "-", r["description"] or "-") for r in rows]
    print_columns(("name", "downloads", "licence", "description"), cells, drop=("licence",))
