"""Recognises class folders, and split folders that contain class folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from automl_pt.core.errors import InvalidDatasetError, NotLabeledDatasetError
from automl_pt.core.text import few, printable
from automl_pt.dataset import SPLITS, LabeledImages, Split
from automl_pt.layouts.class_names import composed
from automl_pt.layouts.left_out import HIDDEN, NO_CLASS, is_of_system, may_be_image, summary
from automl_pt.layouts.scan import Scan, scan
from automl_pt.layouts.split_words import certain, together
from automl_pt.layouts.splits import Layout, alike_note, find_layout, folders_of

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")

WANTED = (
    "expected one folder per class, FOLDER/cat/1.jpg and FOLDER/dog/2.jpg; or FOLDER/train/cat/1.jpg with val and "
    "test beside train; or either in a zip or tar archive; or a table (CSV, parquet) with columns of paths and labels"
)


def open_folder(
    root: Path, shown: Path | None = None, *, ignored: Sequence[str] = (), follow_links: bool = False
) -> LabeledImages:
    """Open class folders, or class folders within split folders; folders that only wrap them are skipped.

    Notes call the folder `shown` if it was unpacked from an archive; `ignored` names the files of that which were not
    unpacked. With `follow_links` images outside the folder count too if a link leads to them.
    """
    found = scan(root, follow_links=follow_links)
    found.left_out += [(name, HIDDEN) for name in ignored]
    if not found.names:
        _refuse_empty(found)
    notes: list[str] = []
    around: list[str] = []
    while wrapper := _wrapper(found):
        found = _unwrapped(found, wrapper)
        around.append(wrapper)
    if around:
        notes.append(f"the classes are in the folder {printable('/'.join(around))!r} within {printable(shown or root)}")
    parts = [_parts(name) for name in found.names]
    layout = find_layout(found, parts)
    return _splits(found, layout, parts, notes) if layout.splits else _classes(found, parts, notes)


def _parts(name: str) -> list[str]:
    return name.split("/")


def _wrapper(found: Scan) -> str | None:
    """Return the one folder around everything, if it contains folders; a lone train folder is not a wrapper."""
    tops = {_parts(name)[0] for name in found.names}
    if len(tops) != 1 or min(len(_parts(name)) for name in found.names) < 3:
        return None
    top = tops.pop()
    # if a folder beside it holds only images of unsupported formats, both are classes
    beside = {_parts(name)[0] for name, why in found.left_out if "/" in name and may_be_image(name, why)} - {top}
    return None if beside or certain(top) == "train" else top


def _unwrapped(found: Scan, wrapper: str) -> Scan:
    cut = len(wrapper) + 1
    return Scan(
        found.root / wrapper,
        [name[cut:] for name in found.names],
        {name[cut:]: target for name, target in found.targets.items()},
        [name[cut:] for name in found.folders if name.startswith(f"{wrapper}/")],
        [(name[cut:] if name.startswith(f"{wrapper}/") else f"../{name}", why) for name, why in found.left_out],
        found.seen,
    )


def _splits(found: Scan, layout: Layout, parts: Sequence[Sequence[str]], notes: list[str]) -> LabeledImages:
    _refuse_flat_validation(found, layout, parts)
    folders: dict[Split, list[str]] = {}
    for folder, split in sorted(layout.splits.items()):
        folders.setdefault(split, []).append(printable(folder))
    text = ", ".join(f"{split} is {' and '.join(map(repr, folders[split]))}" for split in SPLITS if split in folders)
    where = " in each class folder" if layout.split_place else ""
    if layout.places:
        inner = sorted({f"{own[0]}/{own[1]}" for own in parts if own[0] in layout.places})
        text += f"; all of it is in the folders {few(inner)}"
    renamed = any(own != [split] for split, own in folders.items())
    if renamed or where or layout.places:  # folders named exactly like the splits need no note
        notes = [*notes, f"splits as given{where}: {text}"]
    return _by_folder(found, layout, parts, notes)


def _classes(found: Scan, parts: Sequence[Sequence[str]], notes: list[str]) -> LabeledImages:
    folders = folders_of(parts)
    if set(folders.tops) == set(together(folders.tops)):
        _refuse_unlabeled(found)
    note = alike_note(folders)
    return _by_folder(found, Layout(), parts, [*notes, *([note] if note else [])])


def _by_folder(found: Scan, layout: Layout, parts: Sequence[Sequence[str]], notes: list[str]) -> LabeledImages:
    """Label each image by its class folder; images outside class folders are skipped."""
    places = [layout.class_place(own) for own in parts]
    taken = [index for index, own in enumerate(parts) if len(own) > places[index] + 1]
    rest = [(found.names[index], NO_CLASS) for index, own in enumerate(parts) if len(own) <= places[index] + 1]
    left_out = [*found.left_out, *rest]
    above = {tuple(parts[index][: places[index] + 1]) for index in taken}
    covered = {"/".join(own[:depth]) for own in above for depth in range(1, len(own) + 1)}
    classless = _classless(found, layout, covered, left_out)
    if rest:
        count = "1 image is" if len(rest) == 1 else f"{len(rest)} images are"
        notes.append(f"{count} in no class folder and ignored: {few(name for name, _ in rest)}")
    flat = {"/".join(_parts(name)[:depth]) for name, _ in rest for depth in range(1, len(_parts(name)))}
    classless = [name for name in classless if name not in flat]
    if classless:
        notes.append(f"folders without images, which are not classes: {few(classless)}")
    return assemble(
        found,
        [found.names[index] for index in taken],
        [parts[index][places[index]] for index in taken],
        splits=[layout.split(parts[index]) for index in taken] if layout.splits else None,
        left_out=left_out,
        notes=notes,
    )


def _classless(found: Scan, layout: Layout, covered: set[str], left_out: Sequence[tuple[str, str]]) -> list[str]:
    """Return folders that are not classes, because they hold only other files; raise for an empty class folder."""
    held: dict[str, list[tuple[str, str]]] = {}
    for name, why in left_out:
        parts = _parts(name)
        for depth in range(1, min(len(parts), layout.class_place(parts) + 2)):
            held.setdefault("/".join(parts[:depth]), []).append((name, why))
    bare = [
        name
        for name in found.folders
        if name not in covered and len(parts := _parts(name)) <= layout.class_place(parts) + 1
    ]
    empty = [name for name in bare if not _holds_other_files(held.get(name, []))]
    if empty:
        there = [text for name in empty if (text := summary(held.get(name, []))) is not None]
        raise InvalidDatasetError(
            "a class folder holds no images",
            given=f"{printable(found.root)}: no usable image in {few(empty)}"
            + "".join(f"; {text}" for text in there[:3]),
            remedy="put images there (JPEG, PNG, WebP, BMP, GIF, TIFF; no links out of the data), or remove the folder",
        )
    return bare


def _holds_other_files(held: Sequence[tuple[str, str]]) -> bool:
    """Return whether a folder has files, none of which a user may consider an image."""
    own = [(name, why) for name, why in held if not is_of_system(_parts(name)[-1])]
    return bool(own) and not any(may_be_image(name, why) for name, why in own)


def assemble(
    found: Scan,
    names: Sequence[str],
    labels: Sequence[str],
    *,
    splits: Sequence[Split | None] | None = None,
    groups: Sequence[str] | None = None,
    left_out: Sequence[tuple[str, str]] = (),
    notes: Sequence[str] = (),
) -> LabeledImages:
    """Build labelled images from names and class names; classes are sorted."""
    titles, respelled = composed(labels)
    classes = tuple(sorted(set(titles.values())))
    index = {label: classes.index(title) for label, title in titles.items()}
    return LabeledImages(
        images=[found.path(name) for name in names],
        labels=[index[label] for label in labels],
        classes=classes,
        splits=splits,
        names=tuple(names),
        groups=groups,
        root=found.root,
        left_out=tuple(sorted(left_out)),
        notes=(*notes, *respelled),
    )


def _refuse_empty(found: Scan) -> NoReturn:
    given = f"{printable(found.root)}: no image"
    if found.left_out:
        given += f"; {len(found.left_out)} ignored: {few(f'{name} ({why})' for name, why in found.left_out)}"
    raise InvalidDatasetError("the dataset holds no images", given=given, remedy=WANTED)


def _refuse_flat_validation(found: Scan, layout: Layout, parts: Sequence[Sequence[str]]) -> None:
    tops = {own[0] for own in parts if len(own) > 1}
    flat = [top for top, kind in together(tops).items() if kind == "val" and top not in layout.splits]
    if flat and not layout.split_place:
        count = sum(own[0] in flat for own in parts)
        raise NotLabeledDatasetError(
            "the validation images have no labels",
            given=f"{printable(found.root / flat[0])}: {count} images in no class folder",
            remedy="sort them into class folders as in train; or move the folder away to use a share of train",
        )


def _refuse_unlabeled(found: Scan) -> NoReturn:
    tables = sorted(entry.name for entry in found.root.iterdir() if entry.name.lower().endswith(TABLE_SUFFIXES))
    hint = f"give the table {few(tables)} itself if it holds the labels; " if tables else ""
    raise NotLabeledDatasetError(
        "the images have no labels, which training and validation need",
        given=f"{printable(found.root)}: {len(found.names)} images in no class folder, such as {few(found.names, 3)}",
        remedy=hint + WANTED + ". Unlabelled images are for `automl-pt predict`",
    )
