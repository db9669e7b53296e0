"""A new study's split keeps that of the study before: no image of its test split is ever trained on."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from automl_pt.data.carried_split import units, unseen
from automl_pt.data.manifest import Entry, Manifest
from automl_pt.data.split import freeze
from automl_pt.dataset import SPLITS, LabeledImages

CLASSES = ("cat", "dog")
#: (class, content, group, split in the earlier study or None)
IMAGES = st.lists(
    st.tuples(st.sampled_from(CLASSES), st.integers(0, 60), st.integers(0, 12), st.sampled_from([*SPLITS, None])),
    min_size=12,
    max_size=40,
)


def images_of(rows: Any, *, grouped: bool) -> tuple[LabeledImages, list[str], Manifest]:
    names = [f"{index:03}.png" for index in range(len(rows))]
    digests = [f"{content:064}" for _, content, _, _ in rows]
    labels = [CLASSES.index(title) for title, *_ in rows]
    groups = [str(group) for _, _, group, _ in rows] if grouped else None
    known = [
        Entry(f"old/{name}", digest, label, split)
        for name, digest, label, (*_, split) in zip(names, digests, labels, rows, strict=True)
        if split is not None
    ]
    return (
        LabeledImages(names, labels, CLASSES, names=names, groups=groups),
        digests,
        Manifest(tuple(known), CLASSES, "x", 1),
    )


def extended(data: LabeledImages, digests: list[str], earlier: Manifest, **given: Any) -> Manifest:
    shares = {"val_fraction": 0.25, "test_fraction": 0.2, "seed": 1, **given}
    return freeze(data, digests, source="x", earlier=earlier, **shares)


@settings(deadline=None, max_examples=50)
@given(rows=IMAGES, grouped=st.booleans())
def test_nothing_of_the_earlier_test_split_is_trained_on_and_no_unit_is_torn(rows: Any, grouped: bool) -> None:
    data, digests, earlier = images_of(rows, grouped=grouped)
    found = {entry.name: entry for entry in extended(data, digests, earlier).entries}
    tested = {entry.sha256 for entry in earlier.entries if entry.split == "test"}
    assert not [entry for entry in found.values() if entry.sha256 in tested and entry.split != "test"]
    for unit in units(list(data.names or ()), digests, data.groups):
        splits = {found[f"{index:03}.png"].split for index in unit if f"{index:03}.png" in found}
        assert len(splits) <= 1
        before = {entry.split for entry in earlier.entries if entry.sha256 in {digests[index] for index in unit}}
        if before and splits:
            assert splits == {next(split for split in ("test", "val", "train") if split in before)}
    assert extended(data, digests, earlier) == extended(data, digests, earlier)


def test_new_images_are_drawn_by_the_same_shares_and_known_ones_stay() -> None:
    rows = [("cat" if index % 2 else "dog", index, index, None) for index in range(140)]
    rows[:40] = [(title, index, index, SPLITS[index // 2 % 3]) for index, (title, *_) in enumerate(rows[:40])]
    data, digests, earlier = images_of(rows, grouped=False)
    manifest = extended(data, digests, earlier)
    new = [entry for entry in manifest.entries if int(entry.name[:3]) >= 40]
    assert {split: sum(entry.split == split for entry in new) for split in SPLITS} == {
        "train": 60,
        "val": 20,
        "test": 20,
    }
    known = {entry.sha256: entry.split for entry in earlier.entries}
    assert all(known.get(entry.sha256, entry.split) == entry.split for entry in manifest.entries)
    fresh = unseen(manifest, earlier, [entry.name for entry in manifest.entries])
    assert [entry for entry, own in zip(manifest.entries, fresh, strict=True) if not own] == [
        entry for entry in manifest.entries if known.get(entry.sha256) == "train"
    ]


def test_a_new_class_has_images_on_both_sides_and_a_single_new_image_is_no_error() -> None:
    rows: list[Any] = [("cat", index, index, SPLITS[index % 3]) for index in range(9)]
    data, digests, earlier = images_of(
        [*rows, ("cat", 50, 50, None), ("dog", 51, 51, None), ("dog", 52, 52, None)], grouped=False
    )
    manifest = extended(data, digests, earlier, test_fraction=0.0)
    splits = [entry.split for entry in manifest.entries if manifest.classes[entry.label] == "dog"]
    assert sorted(splits) == ["train", "val"]


def test_a_file_that_was_rewritten_is_known_by_its_name() -> None:
    rows = [("cat", 1, 1, "test"), ("cat", 2, 2, "train"), ("dog", 3, 3, "val")]
    data, digests, earlier = images_of(rows, grouped=False)
    entries = tuple(entry._replace(name=entry.name[4:], sha256="f" * 64) for entry in earlier.entries)
    manifest = extended(data, digests, Manifest(entries, CLASSES, "x", 1))
    assert [entry.split for entry in manifest.entries] == ["test", "train", "val"]


def test_splits_that_the_data_state_are_kept_and_what_that_means_is_said() -> None:
    rows = [("cat", 1, 1, "test"), ("dog", 2, 2, "test"), ("cat", 3, 3, "val"), ("dog", 4, 4, None)]
    data, digests, earlier = images_of(rows, grouped=False)
    stated = LabeledImages(
        data.images, data.labels, CLASSES, names=data.names, splits=["train", "train", "test", "test"]
    )
    said: list[str] = []
    shares: Any = {"val_fraction": 0.2, "test_fraction": 0.2, "seed": 1, "source": "x"}
    manifest = freeze(stated, digests, earlier=earlier, tell=said.append, **shares)
    assert [entry.split for entry in manifest.entries] == ["train", "train", "test", "test"]
    assert said == [
        "2 images of the earlier study's test or validation split: training images now, because the data state so: "
        "000.png, 001.png"
    ]
