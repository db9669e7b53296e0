"""`automl-pt dashboard`."""

from __future__ import annotations

import click


@click.command("dashboard")
@click.argument("study")
@click.option("--storage", help="URL of the storage, where it is not study.db in the study's folder.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes any free one.")
def command(study: str, storage: str | None, port: int) -> None:
    """Open STUDY in Optuna's dashboard, on this machine only; Ctrl-C ends it.

    STUDY is a name in studies/ or a folder's path. It needs the extra `dashboard`:
    `pip install '.[dashboard]'` in the checkout of automl-pt.
    """
    from automl_pt.reporting.study import storage_url

    url = storage_url(study, storage=storage)

    from automl_pt.study.dashboard import serve

    with serve(url, port) as server:
        click.echo(f"http://127.0.0.1:{server.server_port}/dashboard/")
        server.serve_forever()
