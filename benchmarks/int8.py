"""Signed or unsigned activations in an int8 export: CPU time of one image on one thread, and the distance from float32.

python benchmarks/int8.py MODEL IMAGES

16 of the images give the ranges, up to 24 are compared; the sides alternate. CPU time, so other work matters less.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import record
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from automl_pt.layouts.listing import list_images
from automl_pt.model.export import verified
from automl_pt.model.int8 import _run, _session
from automl_pt.model.load import load_model
from automl_pt.model.parity import ParityImages, given_to

RANGES, COMPARED, TIMED = 16, 24, 60
SIDES = {"int8, signed": QuantType.QInt8, "int8, unsigned": QuantType.QUInt8}


class Reader(CalibrationDataReader):
    def __init__(self, images: list[NDArray[Any]]) -> None:
        self.rest = iter(images)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        image = next(self.rest, None)
        return None if image is None else {"images": image}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    given = parser.parse_args()
    model = load_model(given.model, device="cpu", calibrated=False)
    paths = list_images([given.images]).paths[:COMPARED]
    content, _ = verified(model, "onnx", ParityImages(paths, "images"))
    images = [given_to(model, paths, "none")(index) for index in range(len(paths))]
    sessions = {"float32": _session(content)}
    with tempfile.TemporaryDirectory() as folder:
        source, prepared, target = (Path(folder, f"{name}.onnx") for name in "abc")
        source.write_bytes(content)
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        for name, kind in SIDES.items():
            quantize_static(prepared, target, Reader(images[:RANGES]), per_channel=True, activation_type=kind)
            sessions[name] = _session(target.read_bytes())
    found: dict[str, dict[str, float]] = {}
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(TIMED):
        for name, session in sessions.items():
            started = time.process_time()
            _run(session, images[0])
            seconds[name].append(time.process_time() - started)
    logits = {name: np.concatenate([_run(one, image) for image in images]) for name, one in sessions.items()}
    for name, own in logits.items():
        found[name] = {
            "milliseconds": 1000 * float(np.median(seconds[name])),
            "mean_difference": float(np.abs(own - logits["float32"]).mean()),
            "same_class": float((own.argmax(1) == logits["float32"].argmax(1)).mean()),
        }
        print(name, found[name])
    print(record.write("int8", network=model.info.backbone, images=len(paths), **found))


if __name__ == "__main__":
    main()
