"""`automl-pt serve`."""

from __future__ import annotations

from pathlib import Path

import click

from automl_pt.cli.names import load_for_model
from automl_pt.cli.working import load


@click.command("serve")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; 0.0.0.0 is all of them.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes any free one.")
@click.option("--allow-host", "names", multiple=True, help="A further name that requests may call this server by.")
@click.option("--max-bytes", type=click.IntRange(min=1), help="Largest body of a request.  [16 MiB]")
@click.option("--max-pixels", type=click.IntRange(min=1), help="Largest image, width times height.  [50 million]")
@click.option("--no-temperature", "raw", is_flag=True, help="Leave out the temperature that is kept with a model.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda[:n] or mps.")
@click.option("--plugin", "plugins", multiple=True, help="A plugin file to load. May be given several times.")
def command(
    model: Path,
    host: str,
    port: int,
    names: tuple[str, ...],
    max_bytes: int | None,
    max_pixels: int | None,
    raw: bool,
    device: str,
    plugins: tuple[str, ...],
) -> int:
    """Classify images sent to MODEL over HTTP: a page to drop them on, and `POST /predict`.

    MODEL is a model directory, or a run or study that holds one. The server listens on this machine alone unless
    --host is given, and has no password. Ctrl-C ends it after the current answers. It needs the
    extra `serve`: `pip install '.[serve]'` in the checkout of automl-pt.
    """
    from automl_pt.serving import require_packages

    require_packages()  # first, because the modules below import what it checks
    registered = load_for_model(plugins, model)

    load("automl_pt.serving.server")
    from automl_pt.cli.signals import stopping
    from automl_pt.core.text import printable
    from automl_pt.model.load import load_model
    from automl_pt.serving.guard import known_as
    from automl_pt.serving.limits import Limits
    from automl_pt.serving.server import bound, run

    given = {"bytes": max_bytes, "pixels": max_pixels}
    limits = Limits(**{name: value for name, value in given.items() if value is not None})
    loaded = load_model(model, device=device, plugins=registered, calibrated=not raw)
    if loaded.temperature != 1:
        click.echo(f"probabilities are those at temperature {loaded.temperature:.4g}", err=True)
    with (
        bound(host, port) as listener,
        stopping("stopping: answering what has come; once more to leave at once") as stop,
    ):
        shown = f"[{host}]" if ":" in host else host
        click.echo(f"http://{printable(shown)}:{listener.getsockname()[1]}/")
        run(loaded, listener, limits, hosts=known_as(host, names), should_stop=lambda: stop.received is not None)
    return 0
