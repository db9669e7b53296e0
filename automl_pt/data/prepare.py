"""A study's data: found, split once, and decoded once."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_pt.check.findings import refuse
from automl_pt.check.quick import quick_check
from automl_pt.config import SearchConfig, TrainConfig
from automl_pt.core.cores import available_cores
from automl_pt.core.errors import InvalidDatasetError
from automl_pt.core.files import cache_folder
from automl_pt.core.text import counted, few
from automl_pt.data.cache.cache import Cache, Decoded
from automl_pt.data.find import find
from automl_pt.data.inventory import Inventory, added, require_unchanged
from automl_pt.data.manifest import LeftOut, Manifest, by_name
from automl_pt.data.pixel_survey import survey_pixels
from automl_pt.data.pixels import Images, Pixels
from automl_pt.data.split import freeze, require_classes
from automl_pt.dataset import Hints, LabeledImages, Split

if TYPE_CHECKING:
    from automl_pt.config import Settings
    from automl_pt.plugins.manager import Plugins

__all__ = ["Data", "Pixels", "find", "prepare"]

OnProgress = Callable[[str, int, int], None]
#: the mean and the standard deviation of each channel
Measures = tuple[tuple[float, ...], tuple[float, ...]]

#: the splits that a search sees share one cache, so that a split by another seed decodes nothing again
FIT: tuple[Split, ...] = ("train", "val")
#: settings that affect the split
SPLIT_SETTINGS = ("val_fraction", "test_fraction", "seed", "split_column", "group_column", "group_by")
#: settings that affect the pixels, and are frozen with the split
PIXEL_SETTINGS = ("channels", "depth")
#: images that the mean and the standard deviation are computed of, and how many of them at a time
MEASURED, BLOCK = 4096, 64
#: side of the first decoding if neither settings nor dataset nor backbone state one
IMAGE_SIZE = 224


@dataclass(frozen=True)
class Data:
    """A frozen split with its pixels. The test split is decoded when its pixels are requested."""

    manifest: Manifest
    hints: Hints
    inventory: Inventory
    cache: Cache
    max_bad: float = 0.0
    #: notes on how the split was drawn, where it was drawn now
    drawn: tuple[str, ...] = ()
    #: the penalty of a head fitted to features, where no image may choose it
    probe_c: float | None = None
    #: notes on the pixels that were found when the split was frozen
    found: tuple[str, ...] = ()
    #: by image size: the manifest whose training images were measured, their mean and standard deviation
    _measured: dict[int, tuple[Manifest, Measures]] = field(default_factory=dict, repr=False)
    _decoded: dict[tuple[bool, int], Decoded] = field(default_factory=dict, repr=False)

    @property
    def notes(self) -> tuple[str, ...]:
        """Return notes for the user: how the data were interpreted, and why a cache could not be used."""
        new = added(self.manifest, self.inventory)
        said = [f"{len(new)} images were added since the split was frozen and are not used: {few(new)}"] if new else []
        pixels = [] if self.found or self.manifest.pixels.is_rgb8 else [f"images are used as {self.manifest.pixels}"]
        own = (*self.drawn, *self.found, *pixels)
        return (*self.inventory.images.notes, *own, *self._lost(), *said, *self.cache.notes)

    def _lost(self) -> list[str]:
        """Note which images are in no split: unreadable ones, and those of classes of the test split only."""
        found = set(self.inventory.images.left_out)
        lost = [item for item in self.manifest.left_out if (item.name, item.reason) not in found]
        shown = few(f"{item.name}: {item.reason}" for item in lost)
        return [f"{counted(len(lost), 'image')} skipped, and listed in manifest.json: {shown}"] if lost else []

    @property
    def decoded(self) -> int:
        """Return the number of images decoded so far: 0 if a cache held all requested ones."""
        return self.cache.decoded

    def pixels(self, split: Split, image_size: int) -> Pixels:
        """Return a split's images at side `image_size`, decoded now unless cached.

        Raises StudyError if a file of the test split changed or vanished, InvalidDatasetError if more of its images
        than `max_bad` allows are unreadable, OutputError if the cache folder that the user chose has no space.
        """
        if split == "test" and (True, image_size) not in self._decoded:
            require_unchanged(self.manifest, self.inventory, ("test",))
        decoded = self.decode(split == "test", image_size)
        entries = [entry for entry in self.manifest.entries if entry.split == split]
        bad = {entry.name: decoded.unreadable[entry.sha256] for entry in entries if entry.sha256 in decoded.unreadable}
        require_few(bad, len(entries), self.max_bad if split == "test" else 0.0)
        entries = [entry for entry in entries if entry.name not in bad]
        images = decoded.view([entry.sha256 for entry in entries])
        labels = np.array([entry.label for entry in entries], np.int64)
        return Pixels(images, labels, tuple(entry.name for entry in entries))

    def statistics(self, image_size: int) -> Measures:
        """Return mean and standard deviation per channel of the training images' pixels divided by 255.

        Of more than `MEASURED` images evenly spaced ones count. A channel without any contrast has deviation 1.
        """
        known = self._measured.get(image_size)
        if known is None or known[0] is not self.manifest:
            known = self.manifest, measured(self.pixels("train", image_size).images)
            self._measured[image_size] = known
        return known[1]

    def digests(self, split: Split, names: Sequence[str]) -> list[str]:
        """Return the sha256 of the content of each of a split's images."""
        known = {entry.name: entry.sha256 for entry in self.manifest.entries if entry.split == split}
        return [known[name] for name in names]

    def decode(self, test: bool, image_size: int) -> Decoded:
        """Return the images of the test split, or of the two others, at side `image_size`."""
        if (test, image_size) not in self._decoded:
            entries = [entry for entry in self.manifest.entries if (entry.split == "test") == test and entry.sha256]
            known = {} if test else {item.sha256: item.reason for item in self.manifest.left_out if item.sha256}
            digests = [*(entry.sha256 for entry in entries), *known]
            originals = self.inventory.originals(entries, self.manifest.pixels)
            self._decoded[test, image_size] = self.cache.images(originals, digests, image_size, unreadable=known)
        return self._decoded[test, image_size]


def measured(images: Images) -> Measures:
    """Return mean and standard deviation per channel of images [N, C, S, S] divided by 255, in float64."""
    count = images.shape[0]
    chosen = np.unique(np.linspace(0, count - 1, min(count, MEASURED)).astype(np.int64))
    sums = np.zeros((2, images.shape[1]))
    for start in range(0, len(chosen), BLOCK):
        block = images[chosen[start : start + BLOCK]].astype(np.float64) / 255
        sums += block.mean(axis=(2, 3)).sum(0), (block**2).mean(axis=(2, 3)).sum(0)
    mean, square = sums / len(chosen)
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    has_contrast = spread > 1e-6 * np.maximum(np.abs(mean), 1e-30)
    return tuple(mean.tolist()), tuple(np.where(has_contrast, spread, 1.0).tolist())


def prepare(
    settings: Settings,
    plugins: Plugins,
    *,
    manifest: Path | None = None,
    progress: OnProgress | None = None,
    earlier: Manifest | None = None,
) -> Data:
    """Find the data of `settings` and freeze their split in the file `manifest`, unless it exists.

    Freezing decodes the training and validation images, so that unreadable ones are known before the first epoch.
    `progress(stage, done, total)` is called during hashing and decoding. Images that the manifest `earlier` of another
    study knows keep their split. Raises UnknownNameError or a DatasetError
    if the data cannot be trained on, and StudyError if images of an existing manifest vanished or changed.
    """
    found, hints = find(**settings.data_source, plugins=plugins)
    folder = Path(settings.cache_dir) if settings.cache_dir else cache_folder()
    required = bool(settings.cache_dir or os.environ.get("AUTOML_PT_CACHE"))
    threads = settings.threads or available_cores()
    inventory = Inventory(found, folder, threads=threads, progress=progress)
    cache = Cache(folder / "pixels", required=required, threads=threads, progress=progress)
    if manifest is not None and manifest.exists():
        frozen = Manifest.load(manifest)
        require_unchanged(frozen, inventory, FIT)
        return Data(frozen, hints, inventory, cache, settings.max_bad)
    said, survey = list[str](), survey_pixels(found, settings)
    split = _split(settings, inventory, earlier, said)
    split = replace(split, asked=split_settings(settings), pixels=survey.pixels)
    fresh = Data(split, hints, inventory, cache, settings.max_bad, tuple(said), found=survey.notes)
    data = _freeze(settings, fresh, plugins)
    if manifest is not None:
        data.manifest.save(manifest)
    return data


def split_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings that affect the split, and those of the pixels where they are given."""
    given = [name for name in PIXEL_SETTINGS if getattr(settings, name) != type(settings).model_fields[name].default]
    return {name: getattr(settings, name) for name in (*SPLIT_SETTINGS, *given)}


def _split(settings: Settings, inventory: Inventory, earlier: Manifest | None, said: list[str]) -> Manifest:
    """Assign a split to every image, and skip those whose files cannot be read."""
    _refuse_twins(inventory.images)
    digests = inventory.digests(inventory.names)
    manifest = freeze(
        inventory.images,
        [digest if isinstance(digest, str) else "" for digest in map(digests.__getitem__, inventory.names)],
        val_fraction=settings.val_fraction,
        test_fraction=settings.test_fraction,
        seed=settings.seed,
        source=settings.dataset,
        earlier=earlier,
        tell=said.append,
    )
    require_classes(manifest)
    return manifest


def _freeze(settings: Settings, data: Data, plugins: Plugins) -> Data:
    """Decode the images that a search uses, and skip unreadable ones as far as `max_bad` allows."""
    unread = data.inventory.digests(entry.name for entry in data.manifest.entries if not entry.sha256)
    decoded = data.decode(False, first_size(settings, plugins, data.hints))
    reasons = {name: error.reason for name, error in unread.items() if not isinstance(error, str)}
    fit = [entry for entry in data.manifest.entries if entry.split != "test"]
    reasons |= {entry.name: decoded.unreadable[entry.sha256] for entry in fit if entry.sha256 in decoded.unreadable}
    require_few({entry.name: reasons[entry.name] for entry in fit if entry.name in reasons}, len(fit), settings.max_bad)
    manifest = leave_out(data.manifest, reasons)
    require_classes(manifest)
    return replace(data, manifest=manifest)


def first_size(settings: Settings, plugins: Plugins, hints: Hints) -> int:
    """Return the image side of a run or of the first trials."""
    if size := settings.image_size or hints.image_size:
        return size
    if isinstance(settings, TrainConfig):
        return plugins.backbone(settings.backbone).image_size
    if isinstance(settings, SearchConfig):
        return plugins.backbone(settings.backbones[0]).image_size
    return IMAGE_SIZE


def _refuse_twins(found: LabeledImages) -> None:
    """Refuse classes of training and validation that a person or another file system would confuse."""
    splits = found.splits or [None] * len(found)
    classes = {found.classes[label] for label, split in zip(found.labels, splits, strict=True) if split != "test"}
    findings = quick_check(replace(found, classes=sorted(classes), images=[], labels=[], splits=[], left_out=()))
    refuse([finding for finding in findings if finding.kind == "twin classes"])


def require_few(bad: Mapping[str, str], count: int, max_bad: float) -> None:
    """Raise InvalidDatasetError, naming them, if `bad` (name to reason) are more than `max_bad` of `count` images."""
    if len(bad) <= max_bad * count:
        return
    # rounded up, so that the suggested value is sufficient
    share = math.ceil(1000 * len(bad) / count) / 1000
    allowed = "none are" if max_bad == 0 else f"{max_bad:.1%} are"
    leave = f", or skip them with --max-bad {share:g}" if share < 1 else ""
    raise InvalidDatasetError(
        f"too many images are unreadable; {allowed} allowed",
        given=f"{len(bad)} of {count} ({len(bad) / count:.1%}): {few(f'{name}: {why}' for name, why in bad.items())}",
        remedy=f"repair or remove them (`automl-pt check` lists all){leave}",
    )


def leave_out(manifest: Manifest, bad: Mapping[str, str]) -> Manifest:
    """Move the entries called `bad` to the list of skipped files, with their reasons."""
    kept = tuple(entry for entry in manifest.entries if entry.name not in bad)
    # those of the test split are handled when it is read, because a search must not depend on them
    dropped = [
        LeftOut(entry.name, bad[entry.name], entry.sha256 if entry.sha256 and entry.split != "test" else None)
        for entry in manifest.entries
        if entry.name in bad
    ]
    left_out = sorted([*manifest.left_out, *dropped], key=lambda item: by_name(item.name))
    return replace(manifest, entries=kept, left_out=tuple(left_out))
