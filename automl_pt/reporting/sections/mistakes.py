"""Images to look at: labels that are likely wrong, confident mistakes, and Grad-CAM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from automl_pt.core.errors import DatasetError
from automl_pt.core.text import counted
from automl_pt.images.formats import picture
from automl_pt.images.pixel_format import shown as as_seen
from automl_pt.images.thumbnail import VIEW, thumbnail, view
from automl_pt.model.saliency import grad_cam
from automl_pt.model.scoring import label_errors
from automl_pt.reporting.html.page import MAX_PICTURES
from automl_pt.reporting.sections import Section, missing
from automl_pt.reporting.sections.validation_results import ValidationResults

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: images listed of either kind; a weak model makes too many to read
MAX_LISTED = 1_000
#: images with Grad-CAM on the page
MAX_LOOKS = 6
#: a model with a lower accuracy cannot find wrong labels
WEAK = 0.8


def mistakes_section(judged: ValidationResults) -> Section:
    """List likely wrong labels, and the other mistakes, the most confident first."""
    probabilities, labels = judged.probabilities, judged.pixels.labels
    predicted = probabilities.argmax(axis=1)
    suspects = label_errors(probabilities, labels)
    doubted = [_item(judged, one.index, one.suggested) for one in suspects[:MAX_LISTED]]
    wrong, shown = np.flatnonzero(predicted != labels), {one.index for one in suspects[:MAX_PICTURES]}
    sure = sorted(wrong.tolist(), key=lambda index: (-probabilities[index, predicted[index]], index))
    rest = [_item(judged, index, int(predicted[index])) for index in sure if index not in shown]
    return {
        "count": len(wrong),
        "label_count": len(suspects),
        "labels": doubted,
        "mistakes": rest[:MAX_LISTED],
        "weak": judged.scores.accuracy < WEAK,
        "labels_note": _labels_note(len(suspects), len(labels), judged.scores.accuracy),
        "note": _note(len(wrong), len(wrong) - len(rest), len(labels)),
    }


def _labels_note(suspects: int, images: int, accuracy: float) -> str:
    if not suspects:
        return f"None of the {images:,} validation images, by confident learning."
    weak = (
        f" The model is right on {100 * accuracy:.0f} % alone: most of these are its own mistakes."
        if accuracy < WEAK
        else ""
    )
    return (
        f"{counted(suspects, 'image')} of {images:,}, by confident learning: another class is as likely as it is on "
        f"that class's own images, and likelier than the label. Some of these labels are right: look.{weak}"
    )


def _note(wrong: int, above: int, images: int) -> str:
    if not wrong:
        return f"All {images:,} validation images are classified as labelled."
    shown = f", {above} of them shown above" if above else ""
    return f"{counted(wrong, 'mistake')} on {images:,} validation images{shown}; the model was surest of the first."


def _item(judged: ValidationResults, index: int, taken_for: int) -> dict[str, Any]:
    classes, label = judged.model.classes, int(judged.pixels.labels[index])
    return {
        "index": index,
        "name": judged.pixels.names[index],
        "label": classes[label],
        "predicted": classes[taken_for],
        "confidence": float(judged.probabilities[index, taken_for]),
        "label_confidence": float(judged.probabilities[index, label]),
    }


def pictures(judged: ValidationResults, mistakes: Section) -> dict[str, str]:
    """Return a small picture of each image on the page, by its name there."""
    shown = [item["index"] for kind in ("labels", "mistakes") for item in mistakes[kind][:MAX_PICTURES]]
    made = {f"image-{index}": _picture(judged, index) for index in dict.fromkeys(shown)}
    return {name: picture for name, picture in made.items() if picture is not None}


def _picture(judged: ValidationResults, index: int) -> str | None:
    try:
        return thumbnail(judged.source(index))
    except (DatasetError, OSError):  # a lazy dataset that can no longer load this image, which the page then lacks
        return None


def _original(judged: ValidationResults, index: int, given: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the square of the original picture that the network was given, uint8[3, s, s]; else its pixels."""
    pixels = as_seen(given.transpose(1, 2, 0)).transpose(2, 0, 1)
    try:
        full = picture(judged.source(index), at_least=VIEW)
    except (DatasetError, OSError):
        return pixels
    side = min(full.shape[:2])
    if side <= pixels.shape[-1]:
        return pixels
    top, left = (full.shape[0] - side) // 2, (full.shape[1] - side) // 2
    return np.ascontiguousarray(full[top : top + side, left : left + side].transpose(2, 0, 1))


def saliency_section(judged: ValidationResults, mistakes: Section) -> tuple[Section, dict[str, str]]:
    """Return the Grad-CAM pictures of the first images, and their section."""
    half = MAX_LOOKS // 2
    chosen = [*mistakes["labels"][:half], *mistakes["mistakes"]][:MAX_LOOKS]
    if not chosen:
        return missing("There is no mistake to look at."), {}
    classes, pixels = list(judged.model.classes), np.stack([judged.pixels.images[item["index"]] for item in chosen])
    made = {}
    for key in ("predicted", "label"):
        wanted = np.array([classes.index(item[key]) for item in chosen], np.int64)
        found = grad_cam(judged.model, pixels, wanted)
        if isinstance(found, str):
            return missing(f"Grad-CAM cannot be drawn for {judged.model.info.backbone}: {found}."), {}
        made[key] = found
    originals = [_original(judged, item["index"], image) for item, image in zip(chosen, pixels, strict=True)]
    shown = {f"view-{item['index']}": view(image) for item, image in zip(chosen, originals, strict=True)}
    for key, found in made.items():
        heats = zip(chosen, originals, found.maps, strict=True)
        shown |= {f"{key}-{item['index']}": view(image, heat) for item, image, heat in heats}
    side, layer = made["predicted"].maps.shape[-1], made["predicted"].layer
    note = (
        f"Grad-CAM on {layer}, a map of {side} x {side}, over the original picture: red areas supported the class "
        "below, the predicted one and the label. No red: nothing at that layer supported the class."
    )
    return {"note": note, "layer": layer, "side": side, "looks": chosen}, shown
