"""`automl-pt plugins`."""

from __future__ import annotations

from pathlib import Path

import click

from automl_pt.cli.columns import print_columns, say
from automl_pt.cli.lookup import json_option, plugin_option


@click.group("plugins", invoke_without_command=True)
@plugin_option
@json_option
@click.pass_context
def command(context: click.Context, plugins: tuple[str, ...], as_json: bool) -> int:
    """List the plugins that are installed: name, version, hooks, source.

    Hooks are read from a plugin's source; nothing is imported. `automl-pt doctor` loads each plugin and says what is
    wrong with it.
    """
    if context.invoked_subcommand is not None:
        return 0
    from dataclasses import asdict

    from automl_pt.core.files import to_json
    from automl_pt.plugins.implementations import survey

    found, faults = survey(plugins)
    if as_json:
        click.echo(to_json([asdict(plugin) for plugin in found], indent=2))
    else:
        rows = [(plugin.name, plugin.version or "-", ", ".join(plugin.hooks), plugin.origin) for plugin in found]
        print_columns(("name", "version", "hooks", "from"), rows)
    for fault in faults:
        say(f"error: {fault}", err=True)
    return 1 if faults else 0


@command.command("check")
@click.argument("name")
@click.option("--root", type=click.Path(path_type=Path), help="Folder of a dataset's files.")
@plugin_option
def check(name: str, root: Path | None, plugins: tuple[str, ...]) -> None:
    """Check what a plugin registers: a backbone, dataset, executor, metric, tracker, or all of them.

    These are the checks of automl_pt.testing, for a plugin's own tests. Needs no network and no GPU.
    """
    from automl_pt.plugins.manager import load_plugins
    from automl_pt.testing.names import check_name

    for passed in check_name(name, load_plugins(plugins), root=root):
        click.echo(f"{passed} keeps the contract")


@command.command("new")
@click.argument("name")
@click.option("--backbone", "backbone", is_flag=True, help="With a backbone.")
@click.option("--dataset", "dataset", is_flag=True, help="With a dataset.")
@click.option("--tracker", "tracker", is_flag=True, help="With a tracker.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path(), help="Where to write it.  [here]")
def new(name: str, backbone: bool, dataset: bool, tracker: bool, folder: Path) -> None:
    """Write a new plugin: an installable distribution with module, test and README.

    NAME is the distribution's, such as acme-nets. Without one of the three options it has a backbone and a dataset.
    """
    from automl_pt.plugins.scaffold import BOTH, new_plugin

    asked = {"backbone": backbone, "dataset": dataset, "tracker": tracker}
    kinds = frozenset(kind for kind, wanted in asked.items() if wanted)
    for path in new_plugin(name, folder, kinds or BOTH):
        click.echo(f"wrote {path}")
    say(f"next: pip install {folder / name}, then automl-pt plugins check {name}")
