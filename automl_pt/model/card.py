"""The README.md of a model directory: what the model is, its figures, and how to load it without this package."""

from __future__ import annotations

import re
from collections.abc import Iterable

from automl_pt.core.text import printable
from automl_pt.model.info import TEMPERATURE, UNSURE, ModelInfo
from automl_pt.model.intervals import wilson
from automl_pt.model.unsure import UnsureRule, conditions, told

#: limit of classes that the card lists; model.json has all
_LISTED = 200
_LOAD = (
    'model.load_state_dict(safetensors.torch.load_file(json.loads(pathlib.Path("model.json").read_text())'
    '["weights"]["file"]))'
)


def card(info: ModelInfo, rule: UnsureRule | None = None) -> str:
    """Return the text of README.md, with the rule for unsure answers if there is one.

    Names from data are in fenced blocks, one per line, so that none acts as markup.
    """
    sections = [
        f"# An image classifier of {len(info.classes)} classes\n\nTrained by automl-pt. `model.json` says all of this "
        "for programs; `weights-*.safetensors` holds nothing but tensors.",
        "## Figures\n\n" + _block(_figures(info)),
        *(["## Unsure answers\n\n" + _unsure(rule)] if rule is not None else []),
        "## Load it\n\n" + _loading(info),
        "## Images\n\n" + _preprocessing(info),
        "## Classes\n\nIn the order of the logits:\n\n" + _block(_classes(info)),
        "## Data\n\n" + _block(_data(info)),
        "## Settings\n\n" + _block(f"{name} = {value!r}" for name, value in info.config.items()),
        "## Versions and licence\n\n" + _block(_versions(info)),
    ]
    return "\n\n".join(sections) + "\n"


def loading_lines(info: ModelInfo) -> list[str] | None:
    """Return the lines that load the model with torchvision or timm only, inside the directory; None if neither can."""
    if info.recipe is None:
        return None
    return ["import json, pathlib, safetensors.torch", *info.recipe.splitlines(), _LOAD, "model.eval()"]


def _loading(info: ModelInfo) -> str:
    ours = '```python\nfrom automl_pt import load_model\nprobabilities = load_model(".").predict(["image.jpg"])\n```'
    lines = loading_lines(info)
    if info.members:
        return f"automl-pt joins its networks, so it is needed:\n\n{ours}"
    if lines is None:
        return f"The network comes from a plugin, so automl-pt and that plugin are needed:\n\n{ours}"
    plain = fenced("python", lines)
    return f"Without automl-pt, in this folder:\n\n{plain}\n\nWith automl-pt, which also reads the images:\n\n{ours}"


def _preprocessing(info: ModelInfo) -> str:
    rule, size = info.preprocessing, info.preprocessing.image_size
    if not rule.pixels.is_rgb8:
        return _own_pixels(info)
    return (
        f"The model takes float32[B, 3, {size}, {size}]: the image upright as its EXIF data say, as RGB; short side "
        f"resized to {size} px (bilinear, antialiased), centre cropped; divided by 255, minus the mean "
        f"{list(rule.mean)}, divided by the standard deviation {list(rule.std)}. It returns logits "
        f"float32[B, {len(info.classes)}]. Their softmax is the probabilities; if there is a `{TEMPERATURE}`, "
        "divide the logits by its `temperature` first."
    )


def _own_pixels(info: ModelInfo) -> str:
    """Describe the input of a model of laboratory images, whose numbers are those of the files."""
    rule, size, channels = info.preprocessing, info.preprocessing.image_size, info.preprocessing.pixels.channels
    mean, std = ([255 * value for value in values] for values in (rule.mean, rule.std))
    return (
        f"The images have {rule.pixels}. The model takes float32[B, {channels}, {size}, {size}]: the image upright, "
        f"short side resized to {size} px (bilinear, antialiased), centre cropped; minus the mean {mean}, divided by "
        f"the standard deviation {std} of its channels in the training images, in the numbers of the files. "
        f"(`model.json` states both for numbers divided by 255.) It returns logits float32[B, {len(info.classes)}]. "
        f"Their softmax is the probabilities; if there is a `{TEMPERATURE}`, divide the logits by its `temperature` "
        "first."
    )


def _unsure(rule: UnsureRule) -> str:
    distance = ""
    if rule.novelty is not None:
        distance = (
            " An image is like known images if the features that enter the last linear layer, scaled to length 1, are "
            f"at most {rule.novelty.limit:.4g} from number {rule.novelty.neighbour} of the nearest of "
            f"{len(rule.novelty.bank)} validation images."
        )
    at = "" if rule.temperature == 1 else f" The probabilities are those at temperature {rule.temperature:.4g}."
    figures = [] if rule.measured is None else told(rule.measured, rule.max_error)
    where = [] if rule.measured is None else [f"measured on the {rule.measured.split} split:"]
    return (
        f"An answer is sure if {conditions(rule)}.{at} This was fitted on {rule.images} validation images, so that at "
        f"most {100 * rule.max_error:g} % of new images like these get a sure answer that is wrong.{distance} "
        f"`{UNSURE}` holds the rule.\n\n" + _block([*where, *figures])
    )


def _figures(info: ModelInfo) -> Iterable[str]:
    if info.members:
        yield f"an ensemble: the mean probabilities of {len(info.members)} networks"
        yield from (
            f"{one['title']}: {one['backbone']}, val_loss {one['metrics'].get('val_loss')}" for one in info.members
        )
    else:
        yield f"network: {info.backbone}"
    yield from (f"{name}: {value}{_spread(info, name, value)}" for name, value in info.metrics.items())
    yield f"epochs trained: {len(info.history)}"


def _spread(info: ModelInfo, name: str, value: object) -> str:
    """Return the 95 % interval of a share of the validation images, as text; empty for other figures."""
    counts = info.data.get("counts")
    images = counts.get("val") if isinstance(counts, dict) else None
    if name != "val_accuracy" or not isinstance(value, float | int) or not 0 <= value <= 1:
        return ""
    if not isinstance(images, int) or images < 1:
        return ""
    low, high = wilson(round(value * images), images)
    return f" (95 %: {low:.4f} to {high:.4f}, on the {images} images that the epoch was chosen by)"


def _classes(info: ModelInfo) -> Iterable[str]:
    yield from (f"{index}: {name}" for index, name in enumerate(info.classes[:_LISTED]))
    if len(info.classes) > _LISTED:
        yield f"and {len(info.classes) - _LISTED} more, in model.json"


def _data(info: ModelInfo) -> Iterable[str]:
    return (f"{name}: {value}" for name, value in info.data.items())


def _versions(info: ModelInfo) -> Iterable[str]:
    yield from (f"{name}: {value}" for name, value in info.versions.items())
    yield from (f"plugin: {plugin.get('name')} {plugin.get('version')}" for plugin in info.plugins)
    if info.config.get("pretrained"):
        yield f"started from pretrained weights; their licence: {info.weights_license or 'unknown'}"
    else:
        yield f"started from: {info.config.get('weights') or 'random weights'}"


def _block(lines: Iterable[str]) -> str:
    """Enclose the lines in more backticks than any of them has in a row, so that none can end the block.

    Starts of HTML tags and unprintable characters are escaped, because some programs interpret HTML even here.
    """
    return fenced("text", (printable(line).replace("<", r"\x3c").replace(">", r"\x3e") for line in lines))


def fenced(language: str, lines: Iterable[str]) -> str:
    """Return a block of Markdown that shows the lines unchanged."""
    text = "\n".join(lines)
    fencing_token = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 3)
    return f"{fencing_token}{language}\n{text}\n{fencing_token}"
