"""`automl-pt export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from automl_pt.cli.columns import say
from automl_pt.cli.names import load_for_model
from automl_pt.cli.working import load, working

if TYPE_CHECKING:
    from automl_pt.model.int8 import Int8Figures
    from automl_pt.model.parity import Parity

#: what of the rule for unsure answers an export has
_RULE_NOTE = (
    "unsure    its metadata have the probability of a sure answer, but an export has no\n"
    "            comparison with known images"
)


@click.command("export")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1)
@click.option(
    "--format", "kind", type=click.Choice(["onnx", "onnx-int8", "torch-export", "safetensors"]), required=True
)
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

    onnx-int8 is for phones and small machines: 8-bit integers, whose loss of accuracy, size and time are measured
    beside those of onnx, shown, and written to a .json file beside the model.
    """
    from automl_pt.core.files import to_json
    from automl_pt.core.text import printable
    from automl_pt.layouts.listing import list_images

    registered = load_for_model(plugins, model)
    listing = list_images(images)

    load("automl_pt.model.int8", quiet=as_json)
    from automl_pt.model.export import ENDINGS, export_model
    from automl_pt.model.int8 import export_int8, figures_beside
    from automl_pt.model.load import find_model, load_model
    from automl_pt.model.own_images import validation_images
    from automl_pt.model.parity import ParityImages

    target = output or Path(find_model(model).resolve().name + ENDINGS[kind])
    written = [target, *([figures_beside(target)] if kind == "onnx-int8" else [])]
    _require_free(written, force=force)
    loaded = load_model(model, device="cpu", plugins=registered)
    named = ParityImages(listing.paths, "images named") if images else None
    checked = named or validation_images(loaded, model, registered)
    for note in listing.notes:
        say(f"note: {note}", err=True)
    if kind == "onnx-int8":
        with working("writing 8-bit integers, and measuring accuracy and time", quiet=as_json):
            int8 = export_int8(loaded, target, checked, preprocessing=preprocessing)
        values = {"output": str(target), "format": kind, "preprocessing": preprocessing, **int8.to_dict()}
        click.echo(to_json(values) if as_json else _int8_lines(written, int8, rule=loaded.rule is not None))
        return
    with working("writing the model, and comparing its answers with PyTorch's", quiet=as_json):
        parity = export_model(loaded, target, kind, checked, preprocessing=preprocessing)
    if as_json:
        click.echo(to_json({"output": str(target), "format": kind, "preprocessing": preprocessing, **parity.to_dict()}))
        return
    say(f"{printable(target)}: " + told(parity, resized=preprocessing == "resize"))
    if loaded.rule is not None and kind != "safetensors":
        click.echo(f"  {_RULE_NOTE}")


def _require_free(written: list[Path], *, force: bool) -> None:
    from automl_pt.core.errors import UsageError
    from automl_pt.core.text import printable

    for path in written:
        if path.exists() and not force:
            raise UsageError(
                "the output file exists already",
                given=f"{printable(path)} is there already",
                remedy="choose another name with --output, or give --force",
            )


def _int8_lines(written: list[Path], found: Int8Figures, *, rule: bool) -> str:
    """Return what an int8 export costs and gains, for a person."""
    from automl_pt.core.text import counted, printable
    from automl_pt.model.int8 import LARGE_LOSS

    fastest, float_fastest = found.milliseconds[0], found.float_milliseconds[0]
    lines = [
        f"{printable(written[0])}: {found.said}; {counted(found.range_images, 'image')} for the ranges, "
        f"{found.images} others measured"
    ]
    if found.comparison is not None and found.accuracy is not None and found.float_accuracy is not None:
        clear = "no clear difference, " if found.comparison.p_value > 0.05 else ""
        lines.append(
            f"accuracy  {100 * found.accuracy:.1f} %, in float32 {100 * found.float_accuracy:.1f} %: "
            f"{100 * found.comparison.accuracy_difference:+.1f} points ({clear}p = {found.comparison.p_value:.2g})"
        )
    lines.append(f"class     the same as in float32 for {found.same_class} of {counted(found.images, 'image')}")
    lines.append(
        f"time      {fastest:.2g} ms an image, in float32 {float_fastest:.2g} ms: {float_fastest / fastest:.1f} times "
        f"the speed\n            (one thread of {printable(found.machine)})"
    )
    lines.append(f"size      {found.bytes / 1e6:.1f} MB, in float32 {found.float_bytes / 1e6:.1f} MB")
    if rule:
        lines.append(_RULE_NOTE)
    if found.points_lost is not None and found.points_lost > LARGE_LOSS:
        lines.append(
            f"note: this loses {found.points_lost:.1f} points; export onnx instead, or train a network whose "
            "activations are made for 8 bits, such as lite0 or a ResNet"
        )
    lines.append(f"figures: {printable(written[1])}")
    return "\n  ".join(lines)


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
