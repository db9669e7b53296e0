"""A study's data on a machine that lacks the image files: the manifest, and the decoded images by their content.

The file of decoded images has a name that follows from the contents and the image size, so that it travels once to each
machine and serves every study with the same images. No image is decoded here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from automl_pt.config import TrainConfig
from automl_pt.core.errors import OutputError
from automl_pt.core.files import atomic_write, cache_folder
from automl_pt.data.cache.cache import Cache, Decoded, _as_decoded, cache_key, opened
from automl_pt.data.cache.disk import SUFFIX
from automl_pt.data.inventory import Inventory
from automl_pt.data.manifest import Manifest
from automl_pt.data.pixels import Originals
from automl_pt.data.prepare import Data
from automl_pt.dataset import Hints, LabeledImages, LazyImages
from automl_pt.images.pixel_format import RGB8, PixelFormat
from automl_pt.plugins.manager import Plugins


@dataclass
class ContentCache(Cache):
    """A cache that decodes nothing: it opens the file that holds the images asked for."""

    def images(
        self, originals: Originals, digests: Sequence[str], image_size: int, *, unreadable: Mapping[str, str]
    ) -> Decoded:
        """Return the images behind `digests`; raise OutputError where their file is not here."""
        wanted = list(dict.fromkeys(digests))
        path = self.folder / pool_name(wanted, image_size, originals.pixels)
        pool = opened(path, image_size, wanted, originals.pixels)
        if pool is None:
            raise _absent(str(path))
        return _as_decoded(pool)


def data_by_content(config: TrainConfig, plugins: Plugins, manifest: Path) -> Data:
    """Return the data of a manifest, whose pixels come from the cache alone."""
    frozen = Manifest.load(manifest)
    entries = frozen.entries

    def absent(index: int) -> NoReturn:
        raise _absent(entries[index].name)

    names, labels = [entry.name for entry in entries], [entry.label for entry in entries]
    images = LabeledImages(LazyImages(len(entries), absent), labels, frozen.classes, names=names)
    datasets = plugins.datasets()
    hints = datasets[config.dataset].hints if config.dataset in datasets else Hints()
    folder = _folder(config.cache_dir)
    cache = ContentCache(folder / "pixels", required=True)
    return Data(frozen, hints, Inventory(images, folder), cache, config.max_bad)


def pool_of(manifest: Manifest, image_size: int) -> str:
    """Return the name of the file with the decoded images of training and validation, as `Data.decode` asks for it."""
    digests = [entry.sha256 for entry in manifest.entries if entry.split != "test" and entry.sha256]
    digests += [item.sha256 for item in manifest.left_out if item.sha256]
    return pool_name(list(dict.fromkeys(digests)), image_size, manifest.pixels)


def pool_name(digests: Sequence[str], image_size: int, pixels: PixelFormat = RGB8) -> str:
    """Return the name of the file that holds images at one size, in one format."""
    return f"{cache_key(digests, image_size, pixels)}{SUFFIX}"


def has_pool(name: str, cache_dir: str | None) -> bool:
    """Say whether this machine has a file of decoded images."""
    return (_folder(cache_dir) / "pixels" / name).is_file()


def read_pool(name: str, cache_dir: str | None) -> bytes:
    """Return the content of a file of decoded images; raise OutputError where it is not on this machine's disk."""
    try:
        return (_folder(cache_dir) / "pixels" / Path(name).name).read_bytes()
    except OSError as error:
        raise _absent(str(error)) from error


def write_pool(name: str, content: bytes, cache_dir: str | None) -> None:
    """Write a file of decoded images; its checksum is compared when it is opened."""
    atomic_write(_folder(cache_dir) / "pixels" / Path(name).name, content)


def _folder(cache_dir: str | None) -> Path:
    return Path(cache_dir) if cache_dir else cache_folder()


def _absent(given: str) -> OutputError:
    return OutputError(
        "decoded images are missing on a machine without the image files",
        given=given,
        remedy="free disk space in the coordinator's cache folder, from which they travel, and search again",
    )
