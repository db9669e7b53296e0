"""Recognises class folders, and folders for splits with class folders in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from automl_pt.dataset import LabeledImages, Split
from automl_pt.errors import InvalidDatasetError, NotLabeledDatasetError
from automl_pt.layouts.scan import HIDDEN, NO_CLASS, NO_IMAGE, Scan, scan
from automl_pt.text import few, printable

#: how people call the three splits
SPLIT_NAMES: Mapping[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")

WANTED = (
    "wanted is one folder per class, FOLDER/cat/1.jpg and FOLDER/dog/2.jpg; or FOLDER/train/cat/1.jpg with val and "
    "test beside train; or either in a zip or tar archive; or a table (CSV, parquet) with columns of paths and labels"
)


def open_folder(
    root: Path, shown: Path | None = None, *, ignored: Sequence[str] = (), follow_links: bool = False
) -> LabeledImages:
    """Open class folders, or class folders within folders for splits; one wrapping folder around them is allowed.

    `shown` is what notes call the folder, where it was unpacked from something else, and `ignored` names the files of
    that which were not unpacked. With `follow_links` images elsewhere count too, where links lead to them.
    """
    found = scan(root, follow_links=follow_links)
    found.left_out += [(name, HIDDEN) for name in ignored]
    if not found.names:
        _refuse_empty(found)
    notes: list[str] = []
    wrapper = _wrapper(found.names)
    if wrapper:
        found = _unwrapped(found, wrapper)
        notes.append(f"the classes are in the folder {printable(wrapper)!r} within {printable(shown or root)}")
    return _splits(found, notes) if _is_split(found) else _classes(found, notes)


def _parts(name: str) -> list[str]:
    return name.split("/")


def _wrapper(names: Sequence[str]) -> str | None:
    """Return the one folder around everything, when there are folders within it; a lone train folder is none."""
    tops = {_parts(name)[0] for name in names}
    if len(tops) != 1 or min(len(_parts(name)) for name in names) < 3:
        return None
    top = tops.pop()
    return None if SPLIT_NAMES.get(top.casefold()) == "train" else top


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


def _is_split(found: Scan) -> bool:
    """Return whether the folders are splits that hold class folders; raise InvalidDatasetError where one cannot say."""
    deep = sorted({_parts(name)[0] for name in found.names if len(_parts(name)) > 2})
    tops = sorted({_parts(name)[0] for name in found.names if "/" in name})
    splits = {SPLIT_NAMES[top.casefold()] for top in deep if top.casefold() in SPLIT_NAMES}
    others = [top for top in tops if top.casefold() not in SPLIT_NAMES]
    if (others and len(splits) < 2) or not splits:
        return False
    if others:
        given = (
            f"{printable(found.root)}: {few(top for top in tops if top not in others)}, and beside them {few(others)}"
        )
        raise InvalidDatasetError(
            "a folder holds either splits or classes", given=given, remedy="move what is not a split to another folder"
        )
    if "train" not in splits:
        given = f"{printable(found.root)}: {few(tops)}"
        raise InvalidDatasetError(
            "a folder of splits needs a train folder", given=given, remedy="add it, or give one of these folders alone"
        )
    return True


def _splits(found: Scan, notes: list[str]) -> LabeledImages:
    folders: dict[Split, str] = {}
    for top in sorted({_parts(name)[0] for name in found.names if "/" in name}):
        split = SPLIT_NAMES[top.casefold()]
        if split in folders:
            raise InvalidDatasetError(
                "a split is one folder",
                given=f"{printable(folders[split])} and {printable(top)} in {printable(found.root)}",
                remedy="move the images of one into the other, or move one away",
            )
        folders[split] = top
    _refuse_flat_validation(found, folders)
    said = "splits as given: " + ", ".join(f"{split} is {printable(top)!r}" for split, top in folders.items())
    return _by_folder(found, 1, [*notes, said])


def _classes(found: Scan, notes: list[str]) -> LabeledImages:
    tops = {_parts(name)[0].casefold() for name in found.names if "/" in name}
    if tops <= set(SPLIT_NAMES):
        _refuse_unlabeled(found)
    return _by_folder(found, 0, notes)


def _by_folder(found: Scan, depth: int, notes: list[str]) -> LabeledImages:
    """Label each image by the folder at `depth` in its name; what lies above is left out."""
    taken = [name for name in found.names if len(_parts(name)) > depth + 1]
    rest = [(name, NO_CLASS) for name in found.names if len(_parts(name)) <= depth + 1]
    left_out = [*found.left_out, *rest]
    classless = _classless(found, depth, {"/".join(_parts(name)[: depth + 1]) for name in taken}, left_out)
    if rest:
        notes.append(f"{len(rest)} images are in no class folder and are left out: {few(name for name, _ in rest)}")
    classless = [name for name in classless if not any(other.startswith(f"{name}/") for other, _ in rest)]
    if classless:
        notes.append(f"no class, as they hold no image: {few(classless)}")
    return assemble(
        found,
        taken,
        [_parts(name)[depth] for name in taken],
        splits=[SPLIT_NAMES[_parts(name)[0].casefold()] for name in taken] if depth else None,
        left_out=left_out,
        notes=notes,
    )


def _classless(found: Scan, depth: int, taken: set[str], left_out: Sequence[tuple[str, str]]) -> list[str]:
    """Return folders that are no class, as all they hold is other files; a class folder left without images raises."""
    wanted = range(1, depth + 2)
    bare = [name for name in found.folders if len(_parts(name)) in wanted and not _covered(name, taken)]
    empty = [name for name in bare if not _holds_other_files(left_out, name)]
    if empty:
        raise InvalidDatasetError(
            "every class folder must hold images",
            given=f"{printable(found.root)}: none that can be taken in {few(empty)}",
            remedy="put images there (JPEG, PNG, WebP, BMP, GIF; no links out of the dataset), or remove the folder",
        )
    return bare


def _covered(folder: str, taken: set[str]) -> bool:
    return folder in taken or any(name.startswith(f"{folder}/") for name in taken)


def _holds_other_files(left_out: Sequence[tuple[str, str]], folder: str) -> bool:
    """Return whether a folder has files, and none that a user may take for a class's images."""
    reasons = {why for name, why in left_out if name.startswith(f"{folder}/")}
    return bool(reasons) and reasons <= {NO_IMAGE, NO_CLASS}


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
    """Make labelled images of names and class names; classes are sorted."""
    classes = tuple(sorted(set(labels)))
    index = {name: position for position, name in enumerate(classes)}
    return LabeledImages(
        images=[found.path(name) for name in names],
        labels=[index[label] for label in labels],
        classes=classes,
        splits=splits,
        names=tuple(names),
        groups=groups,
        root=found.root,
        left_out=tuple(sorted(left_out)),
        notes=tuple(notes),
    )


def _refuse_empty(found: Scan) -> NoReturn:
    given = f"{printable(found.root)}: no image"
    if found.left_out:
        given += f"; {len(found.left_out)} left out: {few(f'{name} ({why})' for name, why in found.left_out)}"
    raise InvalidDatasetError("a dataset must hold images", given=given, remedy=WANTED)


def _refuse_flat_validation(found: Scan, folders: Mapping[Split, str]) -> None:
    depths = [len(_parts(name)) for name in found.names if _parts(name)[0] == folders.get("val")]
    if depths and max(depths) < 3:
        raise NotLabeledDatasetError(
            "training and validation need labelled images",
            given=f"{printable(found.root / folders['val'])}: {len(depths)} images in no class folder",
            remedy="sort them into class folders as in train; or move the folder away, and a share of train is taken",
        )


def _refuse_unlabeled(found: Scan) -> NoReturn:
    tables = sorted(entry.name for entry in found.root.iterdir() if entry.name.lower().endswith(TABLE_SUFFIXES))
    hint = f"give the table {few(tables)} itself if it holds the labels; " if tables else ""
    raise NotLabeledDatasetError(
        "training and validation need labelled images",
        given=f"{printable(found.root)}: {len(found.names)} images in no class folder, such as {few(found.names, 3)}",
        remedy=hint + WANTED + ". Unlabelled images are for `automl-pt predict`",
    )
