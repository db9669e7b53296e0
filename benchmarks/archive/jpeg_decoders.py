"""Which JPEG decoder, and what it costs in likeness: Pillow, torchvision.io and simplejpeg on one thread.

Every side gives uint8[3, S, S] from a file's bytes: short side S, antialiased, centre crop. Sides are interleaved; the
time is this process's own CPU time an image, since other work on the machine then counts for nothing. Likeness is the
mean absolute difference, in levels of 255, from Pillow's full decode with bilinear resize and centre crop.

    python benchmarks/archive/jpeg_decoders.py FOLDER        # any folder of JPEG files
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import record
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision import io as tv_io
from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

from automl_pt.images.decode import decode
from automl_pt.images.resize import fit

IMAGES, REPEATS, SIZES = 240, 7, (64, 224)
Side = Callable[[bytes], NDArray[np.uint8]]


def sides(size: int) -> dict[str, Side]:
    usual = Compose([Resize(size), CenterCrop(size), PILToTensor()])

    def image_folder(content: bytes) -> NDArray[np.uint8]:
        return usual(Image.open(io.BytesIO(content)).convert("RGB")).numpy()

    def pillow(content: bytes) -> NDArray[np.uint8]:
        return fit(np.array(Image.open(io.BytesIO(content)).convert("RGB")), size)

    def pillow_draft(content: bytes) -> NDArray[np.uint8]:
        image = Image.open(io.BytesIO(content))
        image.draft("RGB", (2 * size, 2 * size))
        return fit(np.array(image.convert("RGB")), size)

    def torchvision_io(content: bytes) -> NDArray[np.uint8]:
        raw = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        image = tv_io.decode_jpeg(raw, mode=tv_io.ImageReadMode.RGB)
        return fit(np.ascontiguousarray(image.permute(1, 2, 0).numpy()), size)

    def simplejpeg_full(content: bytes) -> NDArray[np.uint8]:
        return fit(simplejpeg.decode_jpeg(content), size)

    def simplejpeg_fast(content: bytes) -> NDArray[np.uint8]:
        return fit(simplejpeg.decode_jpeg(content, fastdct=True, fastupsample=True), size)

    def simplejpeg_near(content: bytes) -> NDArray[np.uint8]:
        return fit(simplejpeg.decode_jpeg(content, min_height=size, min_width=size), size)

    return {
        "ImageFolder: Pillow, Resize, CenterCrop": image_folder,
        "Pillow, our resize": pillow,
        "Pillow draft (>= 2 S), our resize": pillow_draft,
        "torchvision.io, our resize": torchvision_io,
        "simplejpeg, our resize": simplejpeg_full,
        "simplejpeg fast DCT and upsampling": simplejpeg_fast,
        "simplejpeg scaled (>= 1 S)": simplejpeg_near,
        "automl_pt.images.decode.decode (scaled >= 2 S)": lambda content: decode(content, size),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    files = sorted(parser.parse_args().folder.rglob("*.jpg"))
    contents = [path.read_bytes() for path in files[:: max(len(files) // IMAGES, 1)][:IMAGES]]
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    for size in SIZES:
        times: dict[str, list[float]] = {name: [] for name in sides(size)}
        for _ in range(REPEATS):
            for name, side in sides(size).items():
                start = time.process_time()
                for content in contents:
                    side(content)
                times[name].append((time.process_time() - start) / len(contents) * 1e3)
        results[str(size)] = report(size, times, contents)
    print(record.write("jpeg_decoders", images=len(contents), unit="CPU ms an image", sizes=results))


def report(size: int, times: dict[str, list[float]], contents: list[bytes]) -> dict[str, Any]:
    usual, *_ = sides(size).values()
    reference = [usual(content).astype(np.int16) for content in contents]
    rows: dict[str, Any] = {}
    base = min(times["ImageFolder: Pillow, Resize, CenterCrop"])
    print(f"\n{size} px: CPU ms an image (best, median), speed, difference (mean, worst image, largest pixel)")
    for name, side in sides(size).items():
        apart = [np.abs(side(content) - whole) for content, whole in zip(contents, reference, strict=True)]
        means = [float(one.mean()) for one in apart]
        likeness = {"mean": float(np.mean(means)), "worst": max(means), "largest": int(max(one.max() for one in apart))}
        rows[name] = {**record.summary(times[name]), "speed": base / min(times[name]), "difference": likeness}
        print(
            f"{name:42}{min(times[name]):7.3f}{rows[name]['median']:7.3f}{rows[name]['speed']:6.2f}x"
            f"{likeness['mean']:8.3f}{likeness['worst']:7.3f}{likeness['largest']:5d}"
        )
    return rows


if __name__ == "__main__":
    main()
