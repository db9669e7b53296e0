"""Exports a finished model to formats of other programs, each verified on real images before it is written."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from automl_pt.core.errors import AutomlError, ExportError, InstallationError
from automl_pt.core.files import atomic_write, to_json
from automl_pt.core.installation import how_to_install
from automl_pt.core.text import printable
from automl_pt.model.load import Model
from automl_pt.model.parity import BOUND, PIXEL_BOUND, RELATIVE_BOUND, Parity, ParityImages, Run, compare_exports
from automl_pt.model.preprocessed import Preprocessed, Resizing, Stage, preprocessed, takes
from automl_pt.model.unsure import LEAST, UnsureRule
from automl_pt.training.cpu.small_maps import use_convolutions

if TYPE_CHECKING:
    from numpy.typing import NDArray

Format = Literal["onnx", "torch-export", "safetensors"]
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
ENDINGS = {"onnx": ".onnx", "onnx-int8": "-int8.onnx", "torch-export": ".pt2", "safetensors": ".safetensors"}


def export_model(
    model: Model, path: Path, kind: Format, images: ParityImages, *, preprocessing: Stage = "none"
) -> Parity:
    """Write `model`, loaded on the CPU, as `kind` to `path`, after verifying the export on `images`.

    The exported network takes any number of images, in the form that `takes` states for `preprocessing`, and returns
    logits.
    Raises ExportError if logits or pixels differ by more than rounding or the network cannot be exported,
    InstallationError for a missing package, UnreadableImage for an image that cannot be decoded, OutputError if the
    file cannot be written.
    """
    content, parity = verified(model, kind, images, preprocessing=preprocessing)
    atomic_write(path, content)
    return parity


def verified(
    model: Model, kind: Format, images: ParityImages, *, preprocessing: Stage = "none"
) -> tuple[bytes, Parity]:
    """Return the content of the file that `export_model` writes, and raise like it."""
    # exporters trace the structure, so the network's own convolutions must be restored
    use_convolutions(model.network.cpu()).to(memory_format=torch.contiguous_format)
    model.network.eval()
    rule = model.info.preprocessing
    network = preprocessed(model.network, rule, preprocessing)
    network.eval()
    try:
        with warnings.catch_warnings():
            # the exporters warn about their own libraries; the result is verified below
            warnings.simplefilter("ignore")
            example = _example(model, preprocessing)
            content, run = _MAKERS[kind](network, *example, export_metadata(model, preprocessing))
            resize = None
            if preprocessing == "resize":
                _, resize = _MAKERS[kind](Resizing(rule.image_size, rule.pixels), *example, {})
            parity = compare_exports(model, network, run, images, preprocessing, resize)
    except AutomlError:
        raise
    # exporters raise many types for networks they cannot trace, and their results may fail too
    except (Exception, SystemExit) as error:
        raise export_fault(error, kind, model) from error
    _require_same(parity, f"{kind} of {model.info.backbone}")
    return content, parity


def export_fault(error: BaseException, kind: str, model: Model) -> ExportError:
    """Return the error about a network that cannot be exported as `kind`."""
    return ExportError(
        f"this model cannot be exported as {kind}",
        given=f"{model.info.backbone}: {_reason(error)}",
        remedy="export another format, or use the model directory itself: its README.md says how to load it",
    )


def _reason(error: BaseException) -> str:
    """Return why a network cannot be exported: the innermost cause, without the exporter's colours and advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(_COLOUR.sub("", str(error)).split())
    return printable(f"{type(error).__name__}: {text}")[:300]


def _require_same(parity: Parity, what: str) -> None:
    """Raise ExportError if an export differs from its model by more than rounding."""
    if not parity.has_same_pixels:
        raise ExportError(
            f"the export resizes images differently, by more than one level in {PIXEL_BOUND:.0%} of the pixels",
            given=f"{what}: {parity.differing_pixels:,} of {parity.pixels:,} pixels of {parity.images} images differ, "
            f"by up to {parity.largest_pixel_difference:g} levels",
            remedy="export without --preprocessing resize, or to another format; nothing was written",
        )
    if not parity.has_same_logits:
        raise ExportError(
            f"the export's logits differ from the model's by more than {BOUND:g}, or {RELATIVE_BOUND:g} of the largest "
            "if that is more",
            given=f"{what}: {parity.largest_difference:g} on {parity.images} images, allowed is {parity.bound:.2g}",
            remedy="export another format; nothing was written",
        )


def _example(model: Model, stage: Stage) -> tuple[Tensor, dict[int, Any]]:
    """Return an input to trace with, and its variable dimensions."""
    size, batch = model.info.preprocessing.image_size, torch.export.Dim("batch")
    channels = model.info.preprocessing.pixels.channels
    dtype = getattr(torch, model.info.preprocessing.pixels.dtype)
    if stage == "none":
        return torch.zeros(2, channels, size, size), {0: batch}
    if stage == "normalise":
        return torch.zeros(2, channels, size, size, dtype=dtype), {0: batch}
    sides = {2: torch.export.Dim("height", min=2), 3: torch.export.Dim("width", min=2)}
    return torch.zeros(2, channels, size + 9, size + 21, dtype=dtype), {0: batch, **sides}


def export_metadata(model: Model, stage: Stage) -> dict[str, str]:
    """Return what an export states about itself."""
    info = model.info
    rule = {} if model.rule is None else {"unsure": to_json(_exported_rule(model.rule))}
    return {
        **rule,
        "backbone": info.backbone,
        "classes": to_json(info.classes),
        "preprocessing": to_json(info.preprocessing.to_dict()),
        "takes": takes(stage, info.preprocessing.pixels),
        "gives": "logits float32[B, C]",
        "temperature": repr(model.temperature),
    }


def _exported_rule(rule: UnsureRule) -> dict[str, Any]:
    """Return the part of the rule for unsure answers that needs probabilities alone, which an export gives."""
    return {"threshold": rule.threshold, "temperature": rule.temperature, "least": LEAST, "max_error": rule.max_error}


def _to_onnx(network: nn.Module, example: Tensor, sizes: dict[int, Any], metadata: dict[str, str]) -> tuple[bytes, Run]:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # the exporter needs it
    except ImportError as error:
        raise InstallationError(
            "exporting ONNX requires onnx, onnxscript and onnxruntime",
            given=str(error),
            remedy=f"{how_to_install('onnx')}, or export torch-export or safetensors",
        ) from error
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"]}
    program = torch.onnx.export(network, (example,), dynamo=True, verbose=False, dynamic_shapes=(sizes,), **names)
    assert program is not None
    proto = program.model_proto
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)
    content = proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return content, lambda images: np.asarray(session.run(["logits"], {"images": images.numpy()})[0], np.float32)


def _to_torch_export(
    network: nn.Module, example: Tensor, sizes: dict[int, Any], metadata: dict[str, str]
) -> tuple[bytes, Run]:
    program = torch.export.export(network, (example,), dynamic_shapes=(sizes,))
    stream = io.BytesIO()
    torch.export.save(program, stream, extra_files=dict(metadata))
    content = stream.getvalue()
    loaded = torch.export.load(io.BytesIO(content)).module()
    return content, lambda images: np.asarray(loaded(images).detach().float().numpy(), np.float32)


def _to_safetensors(
    network: nn.Module, example: Tensor, sizes: dict[int, Any], metadata: dict[str, str]
) -> tuple[bytes, Run]:
    from safetensors.torch import load, save

    if isinstance(network, Preprocessed):
        raise ExportError(
            "safetensors cannot include preprocessing, because they hold only weights",
            given="safetensors with preprocessing",
            remedy="remove --preprocessing, or export onnx or torch-export",
        )
    content = save(_copied(network), metadata=metadata)

    def run(images: Tensor) -> NDArray[np.float32]:
        # loaded in place, so that tied weights, modules used twice and compiled modules keep their structure
        own = _copied(network)
        network.load_state_dict(load(content))
        try:
            with torch.no_grad():
                return np.asarray(network(images).float().numpy(), np.float32)
        finally:
            network.load_state_dict(own)

    return content, run


def _copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone().contiguous() for name, tensor in network.state_dict().items()}


_MAKERS: dict[Format, Callable[..., tuple[bytes, Run]]] = {
    "onnx": _to_onnx,
    "torch-export": _to_torch_export,
    "safetensors": _to_safetensors,
}
