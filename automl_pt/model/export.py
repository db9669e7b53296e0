"""A finished model in formats that other programs run, each checked on real images before it is written."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from automl_pt.errors import ExportError, InstallationError
from automl_pt.files import atomic_write, to_json
from automl_pt.images.preprocessing import Preprocessing, normalise, scale_and_offset
from automl_pt.model.load import Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

Format = Literal["onnx", "torch-export", "safetensors"]
ENDINGS: dict[Format, str] = {"onnx": ".onnx", "torch-export": ".pt2", "safetensors": ".safetensors"}
#: largest absolute difference of one logit, in fp32 on the CPU
BOUND = 1e-4
BATCH_SIZE = 32

Run = Callable[[Tensor], "NDArray[np.float32]"]


@dataclass(frozen=True)
class Parity:
    """How an export compares with its model on `images` images: both on the CPU, in fp32."""

    images: int
    largest_difference: float
    same_class: int
    bound: float = BOUND

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return asdict(self)


class WithPreprocessing(nn.Module):
    """A network that takes bytes, uint8[B, 3, S, S], and normalises them itself."""

    scale: Tensor
    offset: Tensor

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        scale, offset = scale_and_offset(preprocessing.mean, preprocessing.std)
        self.register_buffer("scale", scale.clone(), persistent=False)
        self.register_buffer("offset", offset.clone(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits float32[B, C]."""
        logits: Tensor = self.network(images.float() * self.scale + self.offset)
        return logits


def export_model(
    model: Model, path: Path, kind: Format, pixels: NDArray[np.uint8], *, preprocessing: bool = False
) -> Parity:
    """Write `model`, loaded on the CPU, as `kind` to `path`, once it agrees with itself on `pixels` uint8[N, 3, S, S].

    The exported network takes any number of images, float32[B, 3, S, S] normalised, or with `preprocessing`
    uint8[B, 3, S, S]; it returns logits. Raises ExportError when a logit differs by more than `BOUND` or the network
    cannot be exported, InstallationError where a package is missing, OutputError when the file cannot be written.
    """
    network = WithPreprocessing(model.network, model.info.preprocessing) if preprocessing else model.network
    network = network.cpu().float().eval()
    size = model.info.preprocessing.image_size
    example = torch.zeros(2, 3, size, size, dtype=torch.uint8 if preprocessing else torch.float32)
    makers = {"onnx": _to_onnx, "torch-export": _to_torch_export, "safetensors": _to_safetensors}
    try:
        content, run = makers[kind](network, example, _metadata(model, preprocessing=preprocessing))
    except (InstallationError, ExportError):
        raise
    except Exception as error:  # exporters raise many types for networks they cannot trace
        raise ExportError(
            f"a model is exported as {kind} where its network allows",
            given=f"{model.info.backbone}: {type(error).__name__}: {str(error)[:300]}",
            remedy="export another format, or use the model directory itself: its README.md says how to load it",
        ) from error
    parity = _compare(network, run, model.info.preprocessing, pixels, as_bytes=preprocessing)
    if not parity.largest_difference <= BOUND:
        raise ExportError(
            f"an export computes the model's logits, to {BOUND:g}",
            given=f"{kind} of {model.info.backbone}: {parity.largest_difference:g} on {parity.images} images",
            remedy="export another format; nothing was written",
        )
    atomic_write(path, content)
    return parity


def _metadata(model: Model, *, preprocessing: bool) -> dict[str, str]:
    info = model.info
    return {
        "backbone": info.backbone,
        "classes": to_json(info.classes),
        "preprocessing": to_json(info.preprocessing.to_dict()),
        "takes": "uint8[B, 3, S, S]" if preprocessing else "float32[B, 3, S, S], normalised",
        "gives": "logits float32[B, C]",
    }


def _to_onnx(network: nn.Module, example: Tensor, metadata: dict[str, str]) -> tuple[bytes, Run]:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # the exporter needs it
    except ImportError as error:
        raise InstallationError(
            "exporting ONNX needs onnx, onnxscript and onnxruntime",
            given=str(error),
            remedy="pip install 'automl-pt[onnx]', or export torch-export or safetensors",
        ) from error
    batch = torch.export.Dim("batch")
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"]}
    program = torch.onnx.export(network, (example,), dynamo=True, verbose=False, dynamic_shapes=({0: batch},), **names)
    assert program is not None
    proto = program.model_proto
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)
    content = proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return content, lambda images: np.asarray(session.run(["logits"], {"images": images.numpy()})[0], np.float32)


def _to_torch_export(network: nn.Module, example: Tensor, metadata: dict[str, str]) -> tuple[bytes, Run]:
    program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    stream = io.BytesIO()
    torch.export.save(program, stream, extra_files=dict(metadata))
    content = stream.getvalue()
    loaded = torch.export.load(io.BytesIO(content)).module()
    return content, lambda images: np.asarray(loaded(images).detach().numpy(), np.float32)


def _to_safetensors(network: nn.Module, example: Tensor, metadata: dict[str, str]) -> tuple[bytes, Run]:
    from safetensors.torch import load, save

    if isinstance(network, WithPreprocessing):
        raise ExportError(
            "safetensors hold weights, which compute nothing",
            given="safetensors with preprocessing",
            remedy="leave preprocessing out, or export onnx or torch-export",
        )
    state = {name: tensor.contiguous().clone() for name, tensor in network.state_dict().items()}
    content = save(state, metadata=metadata)

    def run(images: Tensor) -> NDArray[np.float32]:
        logits = torch.func.functional_call(network, load(content), (images,))
        return np.asarray(logits.detach().numpy(), np.float32)

    return content, run


def _compare(
    network: nn.Module, run: Run, preprocessing: Preprocessing, pixels: NDArray[np.uint8], *, as_bytes: bool
) -> Parity:
    scale, offset = scale_and_offset(preprocessing.mean, preprocessing.std)
    largest, same = 0.0, 0
    for start in range(0, len(pixels), BATCH_SIZE):
        raw = torch.from_numpy(np.ascontiguousarray(pixels[start : start + BATCH_SIZE]))
        images = raw if as_bytes else normalise(raw, scale, offset)
        with torch.inference_mode():
            wanted = network(images).numpy()
        found = run(images)
        difference = np.abs(found.astype(np.float64) - wanted)
        # not a number differs from everything, and max() would pass over it
        largest = max(largest, float(difference.max()) if np.isfinite(difference).all() else float("inf"))
        same += int((found.argmax(1) == wanted.argmax(1)).sum())
    return Parity(len(pixels), largest, same)
