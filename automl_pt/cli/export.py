"""`automl-pt export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from automl_pt.cli.columns import say

if TYPE_CHECKING:
    from automl_pt.model.parity import Parity


@click.command("export")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1)
@click.option("--format", "kind", type=click.Choice(["onnx", "torch-export", "safetensors"]), required=True)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="File to write.  [the model's name with an ending]"
)
@click.option(
    "--preprocessing",
    type=click.Choice(["none", "normalise", "resize"]),
    default="none",
    show_default=True,
    help="What the exported network does itself: normalise bytes; or also resize and crop images of any size.",
)
@click.option("--force", is_flag=True, help="Replace an output file that is there already.")
@click.option("--plugin", "plugins", multiple=True, help="A plugin file to load. May be given several times.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    model: Path,
    images: tuple[str, ...],
    kind: Any,
    output: Path | None,
    preprocessing: Any,
    force: bool,
    plugins: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write MODEL as one file for other programs, and check it on real images first.

    MODEL is a model directory, or a run or study that holds one. IMAGES are files, folders or patterns; without them
    256 validation images are used, if the data that MODEL was trained on still exist. The exported
    network's logits must equal PyTorch's within 1e-4, or within 1e-5 of an image's largest logit, whichever is larger.
    """
    from automl_pt.core.errors import UsageError
    from automl_pt.core.files import to_json
    from automl_pt.core.text import printable
    from automl_pt.layouts.listing import list_images
    from automl_pt.model.export import ENDINGS, export_model
    from automl_pt.model.load import find_model, load_model
    from automl_pt.model.own_images import validation_images
    from automl_pt.model.parity import ParityImages
    from automl_pt.plugins.manager import load_plugins

    target = output or Path(find_model(model).resolve().name + ENDINGS[kind])
    if target.exists() and not force:
        raise UsageError(
            "the output file exists already",
            given=f"{printable(target)} is there already",
            remedy="choose another name with --output, or give --force",
        )
    registered = load_plugins(plugins)
    loaded = load_model(model, device="cpu", plugins=registered)
    listing = list_images(images)
    named = ParityImages(listing.paths, "images named") if images else None
    checked = named or validation_images(loaded, model, registered)
    for note in listing.notes:
        say(f"note: {note}", err=True)
    parity = export_model(loaded, target, kind, checked, preprocessing=preprocessing)
    if as_json:
        click.echo(to_json({"output": str(target), "format": kind, "preprocessing": preprocessing, **parity.to_dict()}))
    else:
        say(f"{printable(target)}: " + told(parity, resized=preprocessing == "resize"))


def told(parity: Parity, *, resized: bool) -> str:
    """Return a line on how an export compares: the bound, and the effect of resizing in the network."""
    lines = [
        f"on {parity.images} {parity.said} the logits differ by at most {parity.largest_difference:.2g} from PyTorch's "
        f"(bound {parity.bound:g}); {parity.same_class} have the same class"
    ]
    if resized:
        lines.append(
            f"of {parity.pixels:,} pixels that both resized, {parity.differing_pixels:,} were rounded apart, by "
            f"{parity.largest_pixel_difference:g} at most; the logits above are those of equal pixels"
        )
        lines.append(
            "resized in the network, not by the decoder: from the model's own logits they differ by at most "
            f"{parity.model_largest_difference:.2g}; {parity.model_same_class} have the same class"
        )
    if parity.accuracy is not None:
        lines.append(f"accuracy on them: export {parity.accuracy:.4f}, model {parity.model_accuracy:.4f}")
    return "\n  ".join(lines)
