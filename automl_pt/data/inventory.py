"""The images found now, by their stable names, and whether they are still those of a manifest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from unicodedata import normalize

from automl_pt.core.errors import OutputError, StudyError
from automl_pt.core.text import counted, few, printable
from automl_pt.data.hashes import HashIndex, array_digest
from automl_pt.data.manifest import Entry, Manifest
from automl_pt.data.pixels import Originals
from automl_pt.data.split import names_of
from automl_pt.dataset import LabeledImages, Split
from automl_pt.images.pixel_format import RGB8, PixelFormat
from automl_pt.images.read import UnreadableImage

Progress = Callable[[str, int, int], None]


class Inventory:
    """The content of `images`, with content hashes that are cached below `cache_dir`."""

    def __init__(
        self, images: LabeledImages, cache_dir: Path, *, threads: int = 1, progress: Progress | None = None
    ) -> None:
        self.images, self.threads, self.progress = images, threads, progress
        self.names = names_of(images)
        self.index = {name: place for place, name in enumerate(self.names)}
        root = os.fsencode(images.root or "")
        self.hashes = HashIndex(cache_dir / "hashes" / f"{hashlib.sha256(root).hexdigest()[:32]}.json")

    def digests(self, names: Iterable[str]) -> dict[str, str | UnreadableImage]:
        """Return the sha256 of each image of `names`, or the error of one that cannot be read."""
        files: dict[str, Path] = {}
        found: dict[str, str | UnreadableImage] = {}
        read, names = self.hashes.read_files, list(names)
        for done, name in enumerate(names, 1):
            place = self.index[name]
            known = self._remembered(name)
            try:
                image = known or self.images.images[place]
                if isinstance(image, Path):
                    files[name] = image
                else:
                    found[name] = image if isinstance(image, str) else self._remember(name, array_digest(image))
                    if self.progress is not None:
                        self.progress("hashing", done, len(names))
            except UnreadableImage as error:
                found[name] = error
        found.update(self.hashes.digests(files, threads=self.threads, progress=self.progress))
        if self.hashes.read_files > read:
            with suppress(OutputError):  # without a writable folder, files are hashed again next time
                self.hashes.save()
        return found

    def _remembered(self, name: str) -> str | None:
        if self.images.content_id is None:
            return None
        return self.hashes.named.get(f"{self.images.content_id}\0{name}")

    def _remember(self, name: str, digest: str) -> str:
        if self.images.content_id is not None:
            self.hashes.named[f"{self.images.content_id}\0{name}"] = digest
            self.hashes.read_files += 1
        return digest

    def originals(self, entries: Sequence[Entry], pixels: PixelFormat = RGB8) -> Originals:
        """Return the mapping from contents to pixels, which are decoded to this format."""
        names = self.names
        if self.images.root is not None:
            names = [str(image) for image in self.images.images]
        index = {entry.sha256: self.index[entry.name] for entry in entries}
        return Originals(self.images.images, names, index, pixels)

    def title(self, name: str) -> str:
        """Return the class of the image called `name`, in Unicode's composed form."""
        return normalize("NFC", self.images.classes[self.images.labels[self.index[name]]])

    def spell_as(self, manifest: Manifest) -> None:
        """Rename images to the manifest's spelling where the name differs in Unicode form only."""
        known = {entry.name for entry in manifest.entries} | {item.name for item in manifest.left_out}
        missing = {normalize("NFC", name): name for name in known - self.index.keys() if not name.isascii()}
        if not missing:
            return
        other = {name: normalize("NFC", name) for name in self.names if name not in known}
        self.names = [missing.get(other.get(name, name), name) for name in self.names]
        self.index = {name: place for place, name in enumerate(self.names)}


def require_unchanged(manifest: Manifest, inventory: Inventory, splits: Sequence[Split]) -> None:
    """Raise StudyError naming the images of `splits` that vanished, changed, or moved to another class.

    A file with the size, times and inode of its hash is not read again.
    """
    found = changes(manifest, inventory, splits)
    if not any(entry.name in inventory.index for entry in manifest.entries):
        known = f"{counted(len(manifest.entries), 'image')}, such as {printable(manifest.entries[0].name)},"
        raise StudyError(
            "this study or run is of other images",
            given=f"none of its {known} is in this data",
            remedy="give the data that it was started with, or choose another --output or --name",
        )
    given = "; ".join(f"{len(names)} {kind}: {few(names)}" for kind, names in found.items() if names)
    if given:
        raise StudyError(
            "images of this study have changed",
            given=given,
            remedy="restore the files, or start again with another --output or --name, so that figures stay "
            "comparable; a new search with --warm-start and this study's name keeps its split and its ranges",
        )


def changes(manifest: Manifest, inventory: Inventory, splits: Sequence[Split]) -> dict[str, list[str]]:
    """Return the names of the images of `splits` that vanished, changed, or moved to another class."""
    entries = [entry for entry in manifest.entries if entry.split in splits]
    inventory.spell_as(manifest)
    here = [entry for entry in entries if entry.name in inventory.index]
    digests = inventory.digests(entry.name for entry in here)
    vanished = [entry.name for entry in entries if entry.name not in inventory.index]
    changed = [entry.name for entry in here if digests[entry.name] != entry.sha256]
    same = {name: normalize("NFC", name) for name in manifest.classes}
    moved = [entry.name for entry in here if inventory.title(entry.name) != same[manifest.classes[entry.label]]]
    return {"vanished": vanished, "changed": changed, "of another class now": moved}


def added(manifest: Manifest, inventory: Inventory) -> list[str]:
    """Return the names of images that exist now and are not in the manifest."""
    known = {entry.name for entry in manifest.entries} | {item.name for item in manifest.left_out}
    return [name for name in inventory.names if name not in known]
