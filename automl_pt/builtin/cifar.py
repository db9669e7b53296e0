"""CIFAR-10 and CIFAR-100 as published for Python: pickles, which are read here without unpickling.

Unpickling runs code from the file. So the file is only split into its strings and numbers (`pickletools`, which builds
no objects), and the longest string is the pixels. A modified file gives an error or other pixels, but runs no code.
"""

from __future__ import annotations

import pickletools
from pathlib import Path
from typing import Any

from automl_pt.builtin.torchvision_parts import DatasetPart
from automl_pt.core.errors import InvalidDatasetError

PIXELS = 3 * 32 * 32
_TEXT = {"BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES", "STRING"}
_NUMBER = {"BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1"}

Token = str | int


def read(kind: Any, root: Path, *, train: bool) -> DatasetPart:
    """Return the training or the test part of `kind`, torchvision's class; images are uint8 [32, 32, 3]."""
    import numpy as np

    folder = root / kind.base_folder
    names, labels, images = class_names(folder / kind.meta["filename"], kind.meta["key"]), [], []
    for name, _ in kind.train_list if train else kind.test_list:
        batch_images, batch_labels = read_batch(folder / name, len(names))
        images.append(batch_images)
        labels += batch_labels
    return DatasetPart(list(np.concatenate(images)), labels, names)


def download(kind: Any, root: Path) -> None:
    """Download and unpack the published archive, checked against torchvision's checksum, unless it exists."""
    from torchvision.datasets.utils import download_and_extract_archive

    if not all((root / kind.base_folder / name).is_file() for name, _ in [*kind.train_list, *kind.test_list]):
        download_and_extract_archive(kind.url, str(root), filename=kind.filename, md5=kind.tgz_md5)


def read_batch(path: Path, classes: int) -> tuple[Any, list[int]]:
    """Return uint8 [N, 32, 32, 3] and N labels of one file; raise InvalidDatasetError if it holds anything else."""
    import numpy as np

    found = tokens(path)
    key = "fine_labels" if "fine_labels" in found else "labels"
    labels = _numbers_after(found, key)
    pixels = max((token for token in found if isinstance(token, str)), key=len, default="")
    whole = len(pixels) == len(labels) * PIXELS > 0
    if not whole or not all(0 <= label < classes for label in labels):
        raise _damaged(path, f"{len(pixels)} bytes of pixels, {len(labels)} labels, {classes} classes")
    images = np.frombuffer(pixels.encode("latin-1"), np.uint8).reshape(-1, 3, 32, 32)
    return images.transpose(0, 2, 3, 1), labels


def class_names(path: Path, key: str) -> list[str]:
    """Return the names listed under `key` in the file of names."""
    found = tokens(path)
    if key not in found:
        raise _damaged(path, f"no {key!r}")
    count = {"label_names": 10, "fine_label_names": 100}[key]
    names = found[found.index(key) + 1 :][:count]
    if len(names) < count or not all(isinstance(name, str) for name in names):
        raise _damaged(path, f"fewer than {count} names")
    return [str(name) for name in names]


def tokens(path: Path) -> list[Token]:
    """Return the strings and numbers of a pickle in order, bytes as latin-1, without executing it."""
    found: list[Token] = []
    try:
        with open(path, "rb") as stream:
            value: Any
            for code, value, _ in pickletools.genops(stream):
                if code.name in _TEXT:
                    found.append(value.decode("latin-1") if isinstance(value, bytes) else str(value))
                elif code.name in _NUMBER:
                    found.append(int(value))
    except ValueError as error:  # includes UnicodeDecodeError
        raise _damaged(path, str(error)) from error
    return found


def _numbers_after(found: list[Token], key: str) -> list[int]:
    numbers: list[int] = []
    for token in found[found.index(key) + 1 :] if key in found else ():
        if not isinstance(token, int):
            break
        numbers.append(token)
    return numbers


def _damaged(path: Path, reason: str) -> InvalidDatasetError:
    return InvalidDatasetError(
        "the file is not CIFAR's as published",
        given=f"{path}: {reason}",
        remedy="download the dataset again with --download, into an empty folder",
    )
