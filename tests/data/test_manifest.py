from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from automl_pt.core.errors import StudyError
from automl_pt.data.manifest import Entry, LeftOut, Manifest, by_name, manifest_beside

NAMES = ["a/1.png", "b/\udcff\n.png", "b/é <script>.png"]
MANIFEST = Manifest(
    entries=(
        Entry(NAMES[0], "1" * 64, 0, "train"),
        Entry(NAMES[1], "2" * 64, 1, "val"),
        Entry(NAMES[2], "3" * 64, 1, "test"),
    ),
    classes=("a", "b"),
    source="photos",
    seed=-(2**70),
    left_out=(LeftOut("b/x.png", "truncated", "4" * 64), LeftOut("c", "hidden")),
)


def test_a_manifest_survives_the_disk_whatever_the_names(tmp_path: Path) -> None:
    MANIFEST.save(tmp_path / "manifest.json")
    assert Manifest.load(tmp_path / "manifest.json") == MANIFEST
    assert MANIFEST.counts() == {"train": 1, "val": 1, "test": 1}
    assert MANIFEST.indices("val") == (1,)


def test_the_fingerprint_tells_train_and_val_apart_and_knows_no_test_split_and_no_names() -> None:
    entries = MANIFEST.entries
    same = [
        replace(MANIFEST, entries=entries[:2]),
        replace(MANIFEST, entries=(entries[0]._replace(name="other"), *entries[1:])),
        replace(MANIFEST, left_out=(), seed=3, source="elsewhere"),
    ]
    other = [
        replace(MANIFEST, entries=(entries[0]._replace(split="val"), *entries[1:])),
        replace(MANIFEST, entries=(entries[0]._replace(label=1), *entries[1:])),
        replace(MANIFEST, entries=(entries[0]._replace(sha256="9" * 64), *entries[1:])),
        replace(MANIFEST, entries=(entries[1], entries[0])),
        replace(MANIFEST, classes=("a", "c")),
    ]
    assert {one.fingerprint() for one in same} == {MANIFEST.fingerprint()}
    assert len({one.fingerprint() for one in [MANIFEST, *other]}) == 6


def test_every_flipped_bit_and_every_truncation_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    MANIFEST.save(path)
    content = path.read_bytes()
    for place in range(0, len(content), 3):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        try:
            loaded = Manifest.load(path)
        except StudyError:
            continue
        # a flip may fall on white space, or turn a hexadecimal escape's letter from small to capital
        assert loaded == MANIFEST
    for length in range(0, len(content) - 1, 7):
        path.write_bytes(content[:length])
        with pytest.raises(StudyError):
            Manifest.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"sha256": "0"},
        {"entries": [["a", "1", 5, "train"]]},
        {"entries": [["a", "1", 0, "elsewhere"]]},
        {"entries": [["a", "1"]]},
        {"classes": [1]},
        {"left_out": [["a"]]},
    ],
)
def test_what_is_no_manifest_is_a_study_error(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "manifest.json"
    MANIFEST.save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(StudyError, match="the study's manifest is damaged") as caught:
        Manifest.load(path)
    assert str(path) in caught.value.given
    assert "restore the file" in caught.value.remedy


def test_names_sort_alike_however_the_file_system_spells_them() -> None:
    composed, decomposed = "caf\u00e9/1.png", "cafe\u0301/1.png"
    others = ["cafz/1.png", "cafa/1.png"]
    first, second = (sorted([*others, name], key=by_name) for name in (composed, decomposed))
    assert [name.replace(composed, "X") for name in first] == [name.replace(decomposed, "X") for name in second]


@pytest.mark.parametrize(
    ("stands", "named"),
    [("trials/2", "../3"), ("trials/3", "."), ("trials", "3"), ("model", "../model")],
)
def test_a_trial_and_a_model_find_the_split_of_their_study_from_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stands: str, named: str
) -> None:
    for folder in ("trials/2", "trials/3", "model"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / stands)
    assert manifest_beside(Path(named)) is None
    (tmp_path / "manifest.json").write_text("{}")
    assert manifest_beside(Path(named)) == tmp_path / "manifest.json"
