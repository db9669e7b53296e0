"""`automl-pt doctor`."""

from __future__ import annotations

import click

from automl_pt.cli.columns import say
from automl_pt.cli.lookup import json_option, plugin_option


@click.command("doctor")
@plugin_option
@json_option
def command(plugins: tuple[str, ...], as_json: bool) -> int:
    """Show what automl-pt finds on this machine, and any problem.

    The exit code is 1 when there is a problem.
    """
    from dataclasses import asdict

    from automl_pt.core.files import to_json
    from automl_pt.reporting.machine import examine

    findings = examine(plugins)
    if as_json:
        click.echo(to_json([asdict(finding) for finding in findings], indent=2))
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            say(f"{finding.name.ljust(width)}  {finding.value}")
            if finding.problem:
                say("\n".join(f"{'problem:'.rjust(width)}  {line}" for line in finding.problem.splitlines()))
    return 1 if any(finding.problem for finding in findings) else 0
