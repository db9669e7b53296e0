"""`automl-pt export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command("export")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True)
@click.option("--format", "kind", type=click.Choice(["onnx", "torch-export", "safetensors"]), required=True)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="File to write.  [the model's name with an ending]"
)
@click.option("--preprocessing", is_flag=True, help="Let the exported network take bytes and normalise them itself.")
@click.option("--force", is_flag=True, help="Replace an output file that is there already.")
@click.option("--plugin", "plugins", multiple=True, help="A plugin file to load. May be given several times.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    model: Path,
    images: tuple[str, ...],
    kind: Any,
    output: Path | None,
    preprocessing: bool,
    force: bool,
    plugins: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write MODEL as one file for other programs, checked on IMAGES first.

    MODEL is a model directory, or a run or study that holds one. IMAGES are real images, such as those of the
    validation split: files, folders or patterns. The exported network must give the model's logits on them, within
    1e-4.
    """
    from automl_pt.errors import UsageError
    from automl_pt.files import to_json
    from automl_pt.layouts.listing import list_images
    from automl_pt.model.export import ENDINGS, export_model
    from automl_pt.model.load import find_model, load_model
    from automl_pt.plugins import load_plugins
    from automl_pt.text import printable

    target = output or Path(find_model(model).resolve().name + ENDINGS[kind])
    if target.exists() and not force:
        raise UsageError(
            "an output file is not overwritten unasked",
            given=f"{printable(target)} is there already",
            remedy="choose another name with --output, or give --force",
        )
    loaded = load_model(model, device="cpu", plugins=load_plugins(plugins))
    parity = export_model(loaded, target, kind, loaded.pixels(list_images(images)), preprocessing=preprocessing)
    if as_json:
        click.echo(to_json({"output": str(target), "format": kind, **parity.to_dict()}))
    else:
        click.echo(
            f"{printable(target)}: on {parity.images} images the logits differ by at most "
            f"{parity.largest_difference:.2g} (bound {parity.bound:g}); {parity.same_class} have the same class"
        )
