"""`automl-pt plugins`."""

from __future__ import annotations

import click

from automl_pt.cli.columns import print_columns
from automl_pt.cli.lookup import json_option, plugin_option


@click.command("plugins")
@plugin_option
@json_option
def command(plugins: tuple[str, ...], as_json: bool) -> int:
    """List the plugins that are installed: name, version, hooks, where from.

    Hooks are read from a plugin's source; nothing is imported. `automl-pt doctor` loads each plugin and says what is
    wrong with it.
    """
    from dataclasses import asdict

    from automl_pt.files import to_json
    from automl_pt.plugins import survey

    found, faults = survey(plugins)
    if as_json:
        click.echo(to_json([asdict(plugin) for plugin in found], indent=2))
    else:
        rows = [(plugin.name, plugin.version or "-", ", ".join(plugin.hooks), plugin.origin) for plugin in found]
        print_columns(("name", "version", "hooks", "from"), rows)
    for fault in faults:
        click.echo(f"error: {fault}", err=True)
    return 1 if faults else 0
