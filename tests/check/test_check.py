from __future__ import annotations

import json
import os
import shutil
import sqlite3
import struct
import time
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from automl_pt.check import CheckReport, check, quick_check, refuse
from automl_pt.check.alike import MAX_BITS, near_copies
from automl_pt.check.facts import Facts
from automl_pt.check.findings import KINDS
from automl_pt.check.memory import Memory, stamp
from automl_pt.check.page import contact_sheet
from automl_pt.check.survey import SurveyedFile, survey
from automl_pt.cli.check import command
from automl_pt.core.errors import InvalidDatasetError, OutputError, UsageError
from automl_pt.dataset import LabeledImages
from automl_pt.layouts.layouts import open_path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUTOML_PT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def photo(seed: int, side: int = 64) -> Image.Image:
    """Draw smooth blotches: no two seeds look alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def save(path: Path, image: Image.Image, kind: str | None = None, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, kind, **options)


def aged(root: Path) -> Path:
    """Let every file be older than the time in which a change could go unnoticed."""
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            os.utime(path, ns=(10**18, 10**18))
    return root


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """Return a folder with train and val of two classes, six and three different images each."""
    root = tmp_path / "clean"
    for split, count, start in (("train", 6, 0), ("val", 3, 50)):
        for label, name in enumerate(("a", "b")):
            for index in range(count):
                save(root / split / name / f"{index}.png", photo(start + 100 * label + index))
    return aged(root)


def found(report: CheckReport) -> dict[str, list[tuple[str, ...]]]:
    return {one.kind: [item.names for item in one.items] for one in report.findings}


def test_a_clean_dataset_is_clean(clean: Path) -> None:
    report = check(open_path(clean))
    assert report.findings == ()
    assert report.ok
    assert (report.images, report.read) == (18, 18)
    assert (report.classes, report.splits) == ({"a": 9, "b": 9}, {"train": 12, "val": 6})
    assert report.formats == {"PNG": 18}


def bomb() -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 15_000, 15_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def plant(root: Path) -> dict[str, list[tuple[str, ...]]]:
    """Plant every fault a folder can have; return what must be found, by kind."""
    a, b, val = root / "train/a", root / "train/b", root / "val/a"
    (a / "text.jpg").write_text("<html>404</html>")
    (a / "empty.jpg").write_bytes(b"")
    (a / "bomb.png").write_bytes(bomb())
    save(a / "half.jpg", photo(900))
    (a / "half.jpg").write_bytes((a / "half.jpg").read_bytes()[:600])
    save(a / "gif.jpg", photo(901), "GIF")
    save(a / "moving.gif", photo(902), save_all=True, append_images=[photo(903), photo(904)])
    save(a / "print.jpg", photo(905).convert("CMYK"))
    save(a / "sixteen.png", Image.fromarray(np.asarray(photo(906).convert("L")).astype(np.uint16) * 257))
    save(a / "palette.png", photo(907).convert("P", palette=Image.Palette.ADAPTIVE))
    clear = photo(908).convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize((64, 64)))
    save(a / "alpha.png", clear)
    exif = Image.Exif()
    exif[0x0112] = 6
    save(a / "turned.jpg", photo(909), exif=exif)
    save(a / "large.png", photo(910, 600))
    save(a / "large2.png", photo(911, 600))
    save(a / "large3.png", photo(912, 600))
    save(b / "long.png", photo(913).resize((400, 40)))
    shutil.copy(a / "1.png", a / "copy.png")
    shutil.copy(a / "2.png", val / "leak.png")
    shutil.copy(a / "3.png", b / "both.png")
    save(val / "near.jpg", photo(4), quality=90)
    os.symlink("/etc/hostname", a / "away.png")
    os.symlink("..", a / "loop")
    (a / ".DS_Store").write_bytes(b"x")
    (a / "notes.txt").write_text("x")
    (root / "train/loose.png").write_bytes((a / "0.png").read_bytes())
    save(root / "train/A /1.png", photo(920))
    save(root / "val/A /1.png", photo(921))
    save(root / "train/only/1.png", photo(922))
    (root / "train/gone").mkdir()
    (root / "train/gone/1.png").write_bytes(b"junk")
    (root / "val/gone").mkdir()
    (root / "val/gone/1.png").write_bytes(b"junk")
    aged(root)
    return {
        "unreadable": [("train/a/text.jpg",), ("train/gone/1.png",), ("val/gone/1.png",)],
        "empty": [("train/a/empty.jpg",)],
        "huge": [("train/a/bomb.png",)],
        "truncated": [("train/a/half.jpg",)],
        "wrong ending": [("train/a/gif.jpg",)],
        "animated": [("train/a/moving.gif",)],
        "CMYK": [("train/a/print.jpg",)],
        "16 bit": [("train/a/sixteen.png",)],
        "palette": [("train/a/palette.png",)],
        "alpha": [("train/a/alpha.png",)],
        "rotated": [("train/a/turned.jpg",)],
        "odd sizes": [("train/b/long.png", "train/a/large3.png")],
        "long": [("train/b/long.png",)],
        "copies within": [("train/a/1.png", "train/a/copy.png")],
        "copies across": [("train/a/2.png", "val/a/leak.png")],
        "two classes": [("train/a/3.png", "train/b/both.png")],
        "alike across": [("train/a/4.png", "val/a/near.jpg")],
        "link": [("train/a/away.png",), ("train/a/loop",)],
        "hidden": [("train/a/.DS_Store",)],
        "other file": [("train/a/notes.txt",)],
        "outside": [("train/loose.png",)],
        "twin classes": [("A ", "a")],
        "missing class": [("only",)],
        "lost class": [("gone",)],
    }


def test_every_planted_fault_is_named(clean: Path) -> None:
    planted = plant(clean)
    report = check(open_path(clean))
    told = found(report)
    assert len(planted) >= 20
    assert {kind: told.get(kind) for kind in planted} == planted
    assert set(told) == set(planted)
    assert not report.ok
    assert [one.level for one in report.findings] == sorted(
        (one.level for one in report.findings), key=["stop", "falsify", "note"].index
    )


def test_a_second_check_reads_nothing(clean: Path) -> None:
    plant(clean)
    data = open_path(clean)
    first = check(data)
    again = check(data)
    assert (first.read, again.read) == (len(data), 0)
    assert again.findings == first.findings


def test_only_what_changed_is_read_again(clean: Path) -> None:
    check(open_path(clean))
    save(clean / "train/a/0.png", photo(77))
    save(clean / "train/a/new.png", photo(78))
    assert check(open_path(clean)).read == 2


def test_a_moved_dataset_is_read_but_not_decoded(clean: Path, cache: Path) -> None:
    check(open_path(clean))
    shutil.move(clean, clean.with_name("moved"))
    with sqlite3.connect(cache / "check/facts.sqlite") as memory:  # what comes back shows where it comes from
        memory.execute("UPDATE facts SET facts = replace(facts, 'PNG', 'BMP')")
    again = check(open_path(clean.with_name("moved")))
    assert (again.read, again.formats) == (18, {"BMP": 18})


def test_a_file_changed_just_now_is_looked_at_again(clean: Path) -> None:
    save(clean / "train/a/0.png", photo(77))
    check(open_path(clean))
    assert check(open_path(clean)).read == 1


def test_a_damaged_memory_is_put_aside(clean: Path, cache: Path) -> None:
    (cache / "check").mkdir(parents=True)
    (cache / "check/facts.sqlite").write_bytes(b"no database at all " * 200)
    assert check(open_path(clean)).read == 18
    assert check(open_path(clean)).read == 0
    assert (cache / "check/facts.damaged").exists()


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("AUTOML_PT_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="the cache of checks cannot be read or written"):
        Memory()


def test_without_a_default_cache_nothing_is_remembered_and_it_is_said(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.delenv("AUTOML_PT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    reports = [check(open_path(clean)) for _ in range(2)]
    assert [(report.ok, report.read) for report in reports] == [(True, 18)] * 2
    assert "results are not cached for the next check" in reports[0].notes[-1]
    assert str(tmp_path / "file") in reports[0].notes[-1]


def test_pairs_are_remembered_by_what_all_images_show(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo(1, 96).save(clean / "val/a/near.png")
    first = check(open_path(clean))
    calls: list[int] = []
    monkeypatch.setattr("automl_pt.check.alike.near_pairs", lambda facts: calls.append(len(facts)) or iter(()))
    assert check(open_path(clean)).findings == first.findings
    assert calls == []
    assert any(found.kind.startswith("alike") for found in first.findings)


def test_a_memory_damaged_inside_is_said(clean: Path, cache: Path) -> None:
    check(open_path(clean))
    path = cache / "check/facts.sqlite"
    sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    with pytest.raises(OutputError, match="delete the file"):
        check(open_path(clean))


def test_two_checks_at_a_time_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with Memory(tmp_path / "m.sqlite") as one, Memory(tmp_path / "m.sqlite") as other:
        one.keep((b"a", 1, 1, 1), "a", Facts())
        other.keep((b"b", 1, 1, 1), "b", Facts())
        assert one.facts("b") == other.facts("a") == Facts()


def test_a_check_cut_short_is_gone_on_with(clean: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(open_path(clean), progress=stop)
    assert check(open_path(clean)).read == 8


def test_what_another_version_found_is_found_again(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(open_path(clean))
    monkeypatch.setattr("automl_pt.check.memory.VERSION", "another")
    assert check(open_path(clean)).read == 18


def test_facts_survive_the_memory(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    os.utime(tmp_path / "x", ns=(10**18, 10**18))
    one = stamp(tmp_path / "x", os.stat(tmp_path / "x"))
    facts = Facts(fault="truncated", reason="why")
    with Memory(tmp_path / "m.sqlite") as memory:
        memory.keep(one, "digest", facts)
    with Memory(tmp_path / "m.sqlite") as memory:
        assert memory.recall([one]) == {one[0]: ("digest", facts)}
        assert memory.recall([(one[0], one[1], one[2] + 1, one[3])]) == {}
    assert sqlite3.connect(tmp_path / "m.sqlite").execute("SELECT count(*) FROM files").fetchone() == (1,)


def test_unreadable_images_within_max_bad_are_a_note(clean: Path) -> None:
    (clean / "train/a/0.png").write_bytes(b"junk")
    data = open_path(clean)
    assert not check(data).ok
    assert check(data, max_bad=0.1).ok
    assert not check(data, max_bad=0.05).ok


@pytest.mark.parametrize(("split", "images"), [("train", 18), ("val", 18), ("test", 6)])
def test_max_bad_is_a_share_as_training_counts_it(clean: Path, split: str, images: int) -> None:
    # training and validation images count together, and test images by themselves
    shutil.copytree(clean / "val", clean / "test")
    (clean / split / "a/0.png").write_bytes(b"junk")
    for max_bad, level in ((1 / images, "note"), (0.99 / images, "stop"), (0.0, "stop")):
        report = check(open_path(clean), max_bad=max_bad)
        assert [one.level for one in report.findings if one.kind == "unreadable"] == [level]


def test_copies_before_a_split_is_made(clean: Path) -> None:
    shutil.copy(clean / "train/a/0.png", clean / "train/a/again.png")
    save(clean / "train/b/near.jpg", photo(101), quality=90)
    data = open_path(clean / "train")
    told = found(check(replace(data, splits=None)))
    assert told["copies unsplit"] == [("a/0.png", "a/again.png")]
    assert told["alike unsplit"] == [("b/1.png", "b/near.jpg")]
    together = found(check(replace(data, groups=["all"] * len(data))))
    assert "copies unsplit" not in together
    assert "alike unsplit" not in together


def test_arrays_are_compared_too() -> None:
    images = [np.asarray(photo(index)) for index in range(4)]
    data = LabeledImages([*images, images[0]], [0, 0, 1, 1, 1], ("a", "b"))
    report = check(data)
    assert found(report)["two classes"] == [("image 0", "image 4")]
    assert report.read == 0


def test_progress_is_told(clean: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    with Memory() as memory:
        survey(open_path(clean), memory, lambda *call: calls.append(call))
    assert calls == [("examining images", count, 18) for count in range(1, 19)]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=12), st.data())
def test_near_hashes_are_found_as_by_a_plain_loop(hashes: list[int], data: st.DataObject) -> None:
    for _ in range(3):
        near = data.draw(st.sampled_from(hashes))
        for bit in data.draw(st.sets(st.integers(0, 63), max_size=MAX_BITS + 2)):
            near ^= 1 << bit
        hashes.append(near)
    seen = [
        SurveyedFile(index, str(index), str(index), Facts(look=f"{value:016x}", thumb="00" * 256))
        for index, value in enumerate(hashes)
    ]
    told = near_copies(LabeledImages([], [0] * len(seen), ("a",)), seen)
    pairs = {item.names for one in told for item in one.items}
    assert pairs == {
        (str(left), str(right))
        for right in range(len(hashes))
        for left in range(right)
        if (hashes[left] ^ hashes[right]).bit_count() <= MAX_BITS
    }


def test_pictures_of_one_make_are_not_taken_for_one_picture() -> None:
    def look(stroke: int) -> np.ndarray:
        pixels = np.zeros((28, 28), np.uint8)
        pixels[20:22], pixels[stroke : stroke + 3, 4:22] = 200, 180
        return pixels

    data = LabeledImages([look(10), look(12)], [0, 0], ("a",))
    with Memory() as memory:
        seen, _ = survey(data, memory)
    assert near_copies(data, seen) == []


def test_ten_thousand_images_are_compared_within_seconds() -> None:
    rng = np.random.default_rng(0)
    seen = [
        SurveyedFile(index, str(index), str(index), Facts(look=rng.bytes(8).hex(), thumb="00" * 256))
        for index in range(10_000)
    ]
    start = time.perf_counter()
    assert near_copies(LabeledImages([], [0] * len(seen), ("a",)), seen) == []
    assert time.perf_counter() - start < 10


def test_the_quick_part_decodes_nothing_and_refuses(clean: Path) -> None:
    (clean / "train/a/0.png").write_bytes(b"")
    save(clean / "train/B/0.png", photo(1))
    findings = quick_check(open_path(clean))
    assert {one.kind for one in findings} == {"empty", "twin classes", "missing class"}
    with pytest.raises(InvalidDatasetError, match="the data have faults that stop training") as caught:
        refuse(findings)
    assert "B = b" in caught.value.given
    assert "train/a/0.png" in caught.value.given
    refuse([one for one in findings if one.level == "note"])


@pytest.mark.parametrize(
    ("classes", "twins"),
    [
        (("Cat", "cat"), True),
        (("caf\u00e9", "cafe\u0301"), True),
        (("cat", "cat "), True),
        (("cat", "c\u200bat"), True),
        (("\uff43at", "cat"), True),
        (("cat", "cats"), False),
    ],
)
def test_classes_that_look_alike(classes: tuple[str, str], twins: bool) -> None:
    data = LabeledImages([np.zeros((1, 1), np.uint8)] * 4, [0, 0, 1, 1], classes)
    assert any(one.kind == "twin classes" for one in quick_check(data)) == twins


def test_sizes_of_classes() -> None:
    pixels = [np.zeros((1, 1), np.uint8)] * 3
    assert [one.kind for one in quick_check(LabeledImages(pixels, [0, 0, 1], ("a", "b")))] == ["small class"]
    assert [one.kind for one in quick_check(LabeledImages(pixels[:2], [0, 0], ("a",)))] == ["one class"]
    odd = quick_check(LabeledImages(pixels + pixels[:1], [0, 0, 1, 1], ("a", "b\u202e")))
    assert [(one.kind, one.level) for one in odd] == [("odd name", "note")]


def test_every_kind_has_words() -> None:
    for level, what, training, todo in KINDS.values():
        assert level in ("stop", "falsify", "note")
        assert what
        assert training
        assert todo


class Texts(HTMLParser):
    """Collects the tags and the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_contact_sheet_shows_pictures_and_takes_no_orders_from_names(clean: Path) -> None:
    evil = '"><img src=x onerror=alert(1)><script>alert(2)<!--.png'
    shutil.copy(clean / "train/a/0.png", clean / "train/b" / evil)
    (clean / "train/a/junk.png").write_bytes(b"junk")
    data = open_path(clean)
    page = contact_sheet(check(data), data, "<b>title</b>")
    texts = Texts()
    texts.feed(page)
    assert evil in texts.text
    assert "script" not in texts.tags
    assert texts.tags.count("img") == 2
    assert "b" not in texts.tags
    assert "Content-Security-Policy" in page
    assert "http" not in page.replace("http-equiv", "")


def test_the_contact_sheet_is_bounded(tmp_path: Path) -> None:
    for index in range(60):
        save(tmp_path / "a" / f"{index}.png", photo(index))
        save(tmp_path / "b" / f"{index}.png", photo(index))
    data = open_path(tmp_path)
    page = contact_sheet(check(data), data, "x")
    assert page.count("<img") == 2 * 24
    assert "and 36 more" in page


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_command(clean: Path, tmp_path: Path, runner: CliRunner) -> None:
    done = runner.invoke(command, [str(clean)], standalone_mode=False)
    assert done.return_value == 0, done.output
    assert "No problems found" in done.output
    plant(clean)
    page = tmp_path / "sheet.html"
    done = runner.invoke(command, [str(clean), "--html", str(page)], standalone_mode=False)
    assert done.return_value == 1
    assert "train/a/half.jpg" in done.output
    assert "stop training" in done.output
    assert page.read_text().startswith("<!doctype html>")
    assert runner.invoke(command, [str(clean), "--html", str(page)], standalone_mode=False).return_value == 1
    page.write_text("mine")
    done = runner.invoke(command, [str(clean), "--html", str(page)], standalone_mode=False)
    assert isinstance(done.exception, UsageError)
    assert page.read_text() == "mine"
    runner.invoke(command, [str(clean), "--html", str(page), "--force"], standalone_mode=False)
    assert page.read_text().startswith("<!doctype html>")
    done = runner.invoke(command, [str(clean), "--json"], standalone_mode=False)
    told = json.loads(done.output)
    assert done.return_value == 1
    assert told["ok"] is False
    assert told["read"] == 0
    assert {"kind", "level", "what", "training", "todo", "items"} == set(told["findings"][0])


PLUGIN = """
import numpy as np
from automl_pt import Dataset, LabeledImages, hookimpl

@hookimpl
def register_datasets():
    images = [np.full((8, 8), value, np.uint8) for value in (0, 80, 160, 240)]
    return [Dataset("acme/greys", lambda root: LabeledImages(images, [0, 0, 1, 1], ("dark", "light")))]
"""


def test_the_command_takes_a_registered_name(tmp_path: Path, runner: CliRunner) -> None:
    (tmp_path / "greys.py").write_text(PLUGIN)
    options = ["acme/greys", "--plugin", str(tmp_path / "greys.py"), "--json"]
    done = runner.invoke(command, options, standalone_mode=False)
    assert json.loads(done.output)["images"] == 4
