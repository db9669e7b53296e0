"""Exports a model to ONNX with 8-bit integers, for phones and small machines, and measures what that costs and gains.

This is onnxruntime's static quantisation: signed 8-bit weights, scaled for each channel, and unsigned activations,
whose ranges are those of validation images. The format is QDQ, which other runtimes read, too. The accuracy is measured
on other validation images than those of the ranges, and the time on one thread of this machine, image by image.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_pt.core.errors import ExportError, InstallationError, UsageError
from automl_pt.core.files import atomic_write, to_json
from automl_pt.core.installation import how_to_install, installed_version
from automl_pt.model.export import export_fault, export_metadata, verified
from automl_pt.model.labelled import Scored
from automl_pt.model.paired import Paired, compare_models
from automl_pt.model.parity import ParityImages, given_to
from automl_pt.training.number_format import processor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from automl_pt.model.load import Model
    from automl_pt.model.preprocessed import Stage

#: the most images that the ranges of activations are taken from, and the fewest images in all
RANGES, FEWEST = 128, 4
#: forward passes that are timed of each file, alternately, after some that are not
TIMED, WARM = 30, 3
#: a loss of accuracy, in points, above which the command advises against the file
LARGE_LOSS = 2.0


@dataclass(frozen=True)
class Int8Figures:
    """An int8 file beside the float32 one, on `images` images, after ranges from `range_images` others.

    `same_class` counts images that both give the same class. `comparison` and the accuracies are None if the images'
    classes are unknown. Milliseconds are those of one image on one thread: the fastest of `TIMED` passes, which other
    work on the machine delays least, and the median.
    """

    said: str
    range_images: int
    images: int
    same_class: int
    accuracy: float | None
    float_accuracy: float | None
    comparison: Paired | None
    bytes: int
    float_bytes: int
    milliseconds: tuple[float, float]
    float_milliseconds: tuple[float, float]
    machine: str
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return {**asdict(self), "comparison": None if self.comparison is None else self.comparison.to_dict()}

    @property
    def points_lost(self) -> float | None:
        """Return by how many points the accuracy is lower."""
        return None if self.comparison is None else -100 * self.comparison.accuracy_difference


def export_int8(model: Model, path: Path, images: ParityImages, *, preprocessing: Stage = "none") -> Int8Figures:
    """Write `model`, loaded on the CPU, with 8-bit integers to `path`, and its figures as JSON beside it.

    Every second image gives the ranges, up to `RANGES`, and the others are measured on. What precedes the first layer
    with weights, so the preprocessing, stays in float32. Raises UsageError for too few images, InstallationError for a
    missing package, ExportError if the network cannot be exported or quantised, OutputError.
    """
    _require_packages()
    if len(images.sources) < FEWEST:
        raise UsageError(
            "too few images to quantise: some give the ranges of activations, others measure the accuracy",
            given=f"{len(images.sources)} {images.said}",
            remedy=f"give at least {FEWEST} images after the model, better 100: files, folders or patterns",
        )
    content, _ = verified(model, "onnx", images, preprocessing=preprocessing)
    given = given_to(model, images.sources, preprocessing)
    every = range(len(images.sources))
    ranged = every[::2][:RANGES]
    rest = [index for index in every if index % 2]
    try:
        quantised = _quantised(content, (given(index) for index in ranged), export_metadata(model, preprocessing))
    except Exception as error:  # the quantiser raises many types for graphs that it does not support
        raise export_fault(error, "onnx-int8", model) from error
    sessions = [_session(one) for one in (quantised, content)]
    logits = [np.concatenate([_run(one, given(index)) for index in rest]) for one in sessions]
    if not np.isfinite(logits[0]).all():
        raise ExportError(
            "the int8 network computes numbers that are not finite",
            given=f"{model.info.backbone}, on {len(rest)} {images.said}",
            remedy="export onnx instead; nothing was written",
        )
    found = _figures(
        images, rest, len(ranged), logits, (len(quantised), len(content)), _times(sessions, given(rest[0]))
    )
    atomic_write(path, quantised)
    atomic_write(figures_beside(path), to_json(found.to_dict(), indent=2) + "\n")
    return found


def figures_beside(path: Path) -> Path:
    """Return the file of the figures of an int8 export at `path`."""
    return path.with_name(f"{path.stem}.json")


def _require_packages() -> None:
    try:
        import onnx  # noqa: F401  # only whether it is there
        import onnxruntime.quantization  # noqa: F401  # only whether it is there
        import onnxscript  # noqa: F401  # only whether it is there
    except ImportError as error:
        raise InstallationError(
            "exporting int8 requires onnx, onnxscript and onnxruntime",
            given=str(error),
            remedy=f"{how_to_install('onnx')}, or export torch-export or safetensors",
        ) from error


def _quantised(content: bytes, images: Iterator[NDArray[Any]], metadata: dict[str, str]) -> bytes:
    """Return the ONNX file quantised, with ranges from `images`."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def get_next(self) -> dict[str, NDArray[Any]] | None:
            image = next(images, None)
            return None if image is None else {"images": image}

    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, prepared, target = (Path(folder, f"{name}.onnx") for name in ("float32", "prepared", "int8"))
        source.write_bytes(content)
        # symbolic shapes are not needed, and their inference fails on graphs that resize
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        before = _before_weights(onnx.load(prepared))
        # unsigned activations: as exact as signed ones, and faster on x86 (benchmarks/int8.py)
        activations = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        quantize_static(prepared, target, Reader(), per_channel=True, nodes_to_exclude=before, **activations)
        proto = onnx.load(target)
    held = {entry.key for entry in proto.metadata_props}
    for key, value in metadata.items():
        if key not in held:
            proto.metadata_props.add(key=key, value=value)
    result: bytes = proto.SerializeToString()
    return result


def _before_weights(proto: Any) -> list[str]:
    """Return the names of the nodes that the first layer with weights depends on: the preprocessing."""
    weights = {one.name for one in proto.graph.initializer}
    layers = [
        node
        for node in proto.graph.node
        if node.op_type in ("Conv", "Gemm", "MatMul") and len(node.input) > 1 and node.input[1] in weights
    ]
    maker = {output: node for node in proto.graph.node for output in node.output}
    found: dict[str, None] = {}
    waiting = [layers[0].input[0]] if layers else []
    while waiting:
        node = maker.get(waiting.pop())
        if node is not None and node.name not in found:
            found[node.name] = None
            waiting += node.input
    return list(found)


@contextmanager
def _quiet() -> Iterator[None]:
    """Withhold what the quantiser logs about its own steps; its result is measured."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _session(content: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _run(session: Any, image: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(session.run(["logits"], {"images": image})[0], np.float32)


def _times(sessions: Sequence[Any], image: NDArray[Any]) -> list[tuple[float, float]]:
    """Return the lowest and the median of each session's milliseconds, measured alternately."""
    seconds: list[list[float]] = [[] for _ in sessions]
    for _ in range(WARM + TIMED):
        for place, session in enumerate(sessions):
            started = time.perf_counter()
            _run(session, image)
            seconds[place].append(time.perf_counter() - started)
    return [(1000 * min(one[WARM:]), 1000 * statistics.median(one[WARM:])) for one in seconds]


def _figures(
    images: ParityImages,
    rest: Sequence[int],
    ranged: int,
    logits: Sequence[NDArray[np.float32]],
    sizes: tuple[int, int],
    times: Sequence[tuple[float, float]],
) -> Int8Figures:
    from onnxruntime import __version__ as runtime

    accuracies: list[float | None] = [None, None]
    comparison = None
    if images.labels is not None:
        labels = np.array([images.labels[index] for index in rest], np.int64)
        names = tuple(str(index) for index in rest)
        accuracies = [float((one.argmax(1) == labels).mean()) for one in logits]
        comparison = compare_models(*(Scored(names, one, labels, ()) for one in logits))
    return Int8Figures(
        said=images.said,
        range_images=ranged,
        images=len(rest),
        same_class=int((logits[0].argmax(1) == logits[1].argmax(1)).sum()),
        accuracy=accuracies[0],
        float_accuracy=accuracies[1],
        comparison=comparison,
        bytes=sizes[0],
        float_bytes=sizes[1],
        milliseconds=times[0],
        float_milliseconds=times[1],
        machine=processor(),
        versions={"onnxruntime": runtime, "onnx": installed_version("onnx"), "torch": installed_version("torch")},
    )
