from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl_pt.core.errors import InvalidDatasetError
from automl_pt.core.seeds import derive_seed
from automl_pt.data.manifest import Manifest
from automl_pt.data.split import draw, freeze, require_classes
from automl_pt.dataset import LabeledImages, Split

CLASSES = ("a", "b", "c", "d")


def dataset(labels: list[int], **fields: object) -> LabeledImages:
    classes = CLASSES[: max(labels) + 1]
    names = [f"{classes[label]}/{index:03}.png" for index, label in enumerate(labels)]
    return LabeledImages(images=[], labels=labels, classes=classes, **{"names": names, **fields})  # type: ignore[arg-type]


def shuffled(data: LabeledImages, order: list[int]) -> LabeledImages:
    fields = {
        key: values for key in ("splits", "names", "groups", "labels") if (values := getattr(data, key)) is not None
    }
    return replace(data, **{key: [values[index] for index in order] for key, values in fields.items()})


def frozen(data: LabeledImages, *, val: float = 0.2, test: float = 0.0, seed: int = 1) -> Manifest:
    assert data.names is not None
    digests = [f"{hash(name) & 0xFFFFFFFF:064x}" for name in data.names]
    return freeze(data, digests, val_fraction=val, test_fraction=test, seed=seed, source="here")


SIZES = st.lists(st.integers(3, 25), min_size=2, max_size=4)
FRACTIONS = st.sampled_from([0.1, 0.2, 0.25, 0.5, 0.8])


@settings(max_examples=30, deadline=None)
@given(SIZES, FRACTIONS, st.sampled_from([0.0, 0.1, 0.3]), st.integers(-5, 5), st.randoms())
def test_a_split_is_disjoint_exhaustive_stratified_and_stable(
    sizes: list[int], val: float, test: float, seed: int, random: object
) -> None:
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    counts = Counter(labels)
    data = dataset(labels)
    manifest = frozen(data, val=val, test=test, seed=seed)
    # disjoint and exhaustive: every image is there once, with one split
    assert sorted(entry.name for entry in manifest.entries) == sorted(data.names or ())
    assert sum(manifest.counts().values()) == len(labels)
    # stratified: each class's share is met within one image
    rest = dict(counts)
    for split, fraction in (("test", test), ("val", val)):
        for label in counts:
            found = sum(entry.label == label and entry.split == split for entry in manifest.entries)
            assert abs(found - fraction * rest[label]) <= 1
            assert fraction == 0 or 0 < found < rest[label]
            rest[label] -= found
    # stable under any listing order
    order = list(range(len(labels)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert frozen(shuffled(data, order), val=val, test=test, seed=seed) == manifest


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5, 0.9])
def test_images_are_drawn_as_scikit_learn_draws_them(fraction: float) -> None:
    from sklearn.model_selection import train_test_split

    labels = [label for label, size in enumerate((2, 5, 40, 101)) for _ in range(size)]
    data = dataset(labels)
    assert data.names is not None
    expected: list[int] = []
    for label, size in enumerate((2, 5, 40, 101)):
        members = [index for index, other in enumerate(labels) if other == label]
        state = derive_seed(7, CLASSES[label]) % 2**32
        count = min(max(round(fraction * size), 1), size - 1)
        expected += train_test_split(members, test_size=count, random_state=state)[1]
    assert draw(data, data.names, list(range(len(labels))), fraction, 7) == expected


def test_a_seed_fixes_the_split_and_another_gives_another() -> None:
    data = dataset([0, 1] * 20)
    assert frozen(data) == frozen(data)
    assert frozen(data).fingerprint() != frozen(data, seed=2).fingerprint()


def test_class_names_need_not_be_utf8() -> None:
    names = dict.fromkeys(("a", "b\udcff"), 10)
    titled = [f"{title}/{index}.png" for title, count in names.items() for index in range(count)]
    labels = [0] * 10 + [1] * 10
    odd = LabeledImages(images=[], labels=labels, classes=tuple(names), names=titled)
    assert Counter((entry.label, entry.split) for entry in frozen(odd).entries)[1, "val"] == 2
    assert derive_seed("caf\u00e9") != derive_seed("caf\udce9")


def test_another_class_does_not_change_a_classes_split() -> None:
    few, more = dataset([0, 1] * 10), dataset([0, 1] * 10 + [2] * 7)
    assert set(frozen(more).entries) >= set(frozen(few).entries)


def test_splits_of_the_datas_own_are_kept_and_only_what_lacks_is_drawn() -> None:
    own: list[Split | None] = ["train"] * 20 + ["test"] * 4
    data = dataset([0, 1] * 12, splits=own)
    manifest = frozen(data, val=0.2, test=0.5)
    assert manifest.counts() == {"train": 16, "val": 4, "test": 4}
    kept = {entry.name for entry in manifest.entries if entry.split == "test"}
    assert kept == set((data.names or ())[20:])


def test_images_without_a_split_are_for_training_where_validation_is_given() -> None:
    data = dataset([0, 1] * 6, splits=["val", "val", *[None] * 10])
    assert frozen(data).counts() == {"train": 10, "val": 2, "test": 0}


def test_the_test_split_cannot_change_what_a_search_sees() -> None:
    labels = [0, 1] * 12 + [2, 2]
    with_test = dataset(labels, splits=["train"] * 20 + ["test"] * 6)
    without = replace(
        with_test, labels=labels[:20], names=(with_test.names or ())[:20], splits=["train"] * 20, classes=CLASSES[:2]
    )
    first, second = frozen(with_test), frozen(without)
    assert first.fingerprint() == second.fingerprint()
    assert first.classes == second.classes == ("a", "b")
    assert [e for e in first.entries if e.split != "test"] == list(second.entries)
    # the class that only the test split knows is left out, and listed
    assert [item.name for item in first.left_out] == ["c/024.png", "c/025.png"]
    assert first.left_out[0].reason == "its class has images in the test split only"


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 11)), min_size=40, max_size=80),
    st.sampled_from([0.2, 0.4, 0.7]),
)
def test_groups_are_never_torn_apart(images: list[tuple[int, int]], fraction: float) -> None:
    labels = [label for label, _ in images]
    data = dataset([*labels, 0, 1, 2], groups=[*(str(group) for _, group in images), "x", "y", "z"])
    try:
        manifest = frozen(data, val=fraction)
    except InvalidDatasetError as error:
        if "group" not in error.rule:
            raise
        return
    groups = dict(zip(data.names or (), data.groups or (), strict=True))
    of = {split: {groups[e.name] for e in manifest.entries if e.split == split} for split in ("train", "val")}
    assert not of["train"] & of["val"]
    assert len(manifest.entries) == len(data.labels)
    require_classes(manifest)
    order = list(range(len(data.labels)))[::-1]
    assert frozen(shuffled(data, order), val=fraction) == manifest


def test_a_grouped_split_comes_near_its_share() -> None:
    labels = [index % 2 for index in range(400)]
    data = dataset(labels, groups=[f"g{index // 8}" for index in range(400)])
    for fraction in (0.1, 0.2, 0.3, 0.75):
        found = frozen(data, val=fraction).counts()["val"] / 400
        assert abs(found - fraction) <= 0.05


@pytest.mark.parametrize(
    ("data", "rule", "given"),
    [
        (dataset([0, 0, 1]), "some classes have fewer than two images, so they cannot be split", "one only in b"),
        (
            dataset([0, 0, 1, 1], groups=["x", "y", "z", "z"]),
            "some classes have fewer than two groups, so they cannot be split",
            "one only in b",
        ),
        (dataset([0, 1], names=["x", "x"]), "two images have the same name", "more than one image called x"),
    ],
)
def test_what_cannot_be_split_is_refused(data: LabeledImages, rule: str, given: str) -> None:
    with pytest.raises(InvalidDatasetError) as caught:
        frozen(data)
    assert caught.value.rule == rule
    assert given in caught.value.given
    assert caught.value.remedy


def test_groups_that_leave_a_class_on_one_side_are_refused() -> None:
    # every group holds all of one class's images but one
    data = dataset([0, 0, 1, 1, 2, 2], groups=["x", "y", "x", "z", "y", "z"])
    with pytest.raises(InvalidDatasetError, match="every class on both sides and no group on two") as caught:
        frozen(data)
    assert caught.value.given == "3 groups of 3 classes"


@pytest.mark.parametrize(
    ("splits", "labels", "classes", "rule", "given"),
    [
        (["train", "val"], [0, 0], ("a",), "there are fewer than two classes", "a"),
        ([], [], (), "there are fewer than two classes", "no labelled image"),
        (
            ["train", "val"],
            [0, 0],
            ("a", "b"),
            "a class has no readable image",
            "none in b (skipped: b/1.png: empty)",
        ),
        (
            ["train", "train", "val", "val"],
            [0, 1, 1, 2],
            ("a", "b", "c"),
            "training and validation have different classes",
            "train has no image of c; val has no image of a",
        ),
    ],
)
def test_class_checks_say_what_is_missing_on_either_side(
    splits: list[Split], labels: list[int], classes: tuple[str, ...], rule: str, given: str
) -> None:
    names = [f"{index}.png" for index in range(len(labels))]
    left_out = [("b/1.png", "empty")] if classes == ("a", "b") else []
    data = LabeledImages([], labels, classes, splits=splits, names=names, left_out=left_out)
    manifest = freeze(data, ["0"] * len(labels), val_fraction=0.2, test_fraction=0, seed=1, source="here")
    with pytest.raises(InvalidDatasetError) as caught:
        require_classes(manifest)
    assert (caught.value.rule, caught.value.given) == (rule, given)
    assert caught.value.remedy
