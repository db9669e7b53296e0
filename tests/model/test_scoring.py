"""Figures of a model on labelled images, against definitions written out."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy.stats import binomtest
from sklearn.metrics import f1_score
from tiny import make_model

from automl_pt.cli.evaluate import command as evaluate
from automl_pt.cli.evaluate_display import print_scores
from automl_pt.core.errors import InvalidDatasetError
from automl_pt.model.calibration import calibrate
from automl_pt.model.intervals import f1_intervals
from automl_pt.model.labelled import Scored, open_labelled, run_model
from automl_pt.model.load import load_model
from automl_pt.model.paired import compare_models
from automl_pt.model.scoring import Scores, interval, score
from automl_pt.model.thresholds import class_thresholds, thresholds
from automl_pt.plugins.manager import Plugins


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 40), st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_figures_equal_their_definitions(images: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(images, classes)).astype(np.float32)
    labels = rng.integers(0, classes, images)
    names = [f"c{index}" for index in range(classes)]
    found = score(logits, labels, names)
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    loss = np.mean([math.log(np.exp(row).sum()) - row[label] for row, label in zip(shifted, labels, strict=True)])
    assert found.loss == pytest.approx(loss, rel=1e-5)
    predicted = [max(range(classes), key=lambda column: row[column]) for row in logits]  # noqa: B023
    assert found.accuracy == sum(map(int.__eq__, predicted, labels.tolist())) / images
    if classes > 5:
        hits = [label in sorted(range(classes), key=lambda c: -row[c])[:5] for row, label in zip(logits, labels)]  # noqa: B023, B905
        assert found.top5 == pytest.approx(sum(hits) / images)
    else:
        assert found.top5 is None
    assert found.confusion is not None
    for index, entry in enumerate(found.per_class):
        true, taken, hit = (labels == index).sum(), predicted.count(index), found.confusion[index][index]
        assert (entry.images, entry.predicted, sum(found.confusion[index])) == (true, taken, true)
        assert entry.recall == (pytest.approx(hit / true) if true else None)
        assert entry.precision == (pytest.approx(hit / taken) if taken else None)
        assert entry.f1 == (pytest.approx(2 * hit / (true + taken)) if true + taken else None)
        assert (entry.recall_interval is None) == (true == 0)
        if entry.f1_interval is not None and entry.f1 is not None:
            assert 0 <= entry.f1_interval[0] <= entry.f1_interval[1] <= 1
    assert found.confusion_normalised is not None
    for counts, shares in zip(found.confusion, found.confusion_normalised, strict=True):
        assert shares == pytest.approx([count / sum(counts) if sum(counts) else 0 for count in counts])
    present = [entry for entry in found.per_class if entry.images]
    assert found.macro["recall"] == pytest.approx(np.mean([entry.recall for entry in present]))
    assert found.weighted["recall"] == pytest.approx(found.accuracy)
    json.dumps(found.to_dict(), allow_nan=False)


def test_wilsons_interval_is_known_for_ten_of_ten() -> None:
    low, high = interval(10, 10)
    z = 1.959963984540054
    assert low == pytest.approx(1 / (1 + z * z / 10))
    assert high == pytest.approx(1)


@given(st.integers(1, 10_000), st.data())
def test_the_intervals_of_shares_are_scipys(count: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, count))
    wanted = binomtest(hits, count).proportion_ci(confidence_level=0.95, method="wilson")
    assert interval(hits, count) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


def test_the_bootstrap_of_f1_is_that_over_images() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 200)
    predicted = np.where(rng.random(200) < 0.7, labels, rng.integers(0, 3, 200))
    hits, taken, images = (np.bincount(one, minlength=3) for one in (labels[labels == predicted], predicted, labels))
    found = f1_intervals(hits, taken, images, 200)
    drawn = []
    for _ in range(500):
        chosen = rng.integers(0, 200, 200)
        drawn.append(f1_score(labels[chosen], predicted[chosen], average=None))
    wanted = np.percentile(np.array(drawn), [2.5, 97.5], axis=0).T
    assert np.allclose(np.array(found), wanted, atol=0.03)
    assert f1_intervals(hits, taken, images, 200) == found


def test_nothing_right_or_everything_has_no_bootstrap() -> None:
    one = np.array([0, 5, 3])
    assert f1_intervals(one, np.array([2, 5, 4]), np.array([4, 5, 3]), 12)[:2] == [None, None]


def test_thresholds_are_their_definition() -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.55, 0.45]], np.float32)
    found = {entry.probability: entry for entry in thresholds(probabilities, np.array([0, 1, 1, 0]))}
    assert (found[0.5].images, found[0.5].coverage, found[0.5].accuracy) == (4, 1.0, 0.75)
    assert (found[0.6].images, found[0.6].accuracy) == (3, pytest.approx(2 / 3))
    assert (found[0.9].images, found[0.9].coverage, found[0.9].accuracy) == (1, 0.25, 1.0)
    assert (found[0.95].images, found[0.95].accuracy, found[0.95].accuracy_interval) == (0, None, None)


def test_the_threshold_of_a_class_is_the_lowest_that_is_precise_enough() -> None:
    own = np.linspace(0, 1, 101, dtype=np.float32)
    probabilities = np.stack([own, 1 - own], axis=1)
    labels = np.where(own > 0.5, 0, 1)
    labels[70] = 1
    first, second = class_thresholds(probabilities, labels, "ab")
    taken = own >= first.probability
    assert (labels[taken] == 0).mean() >= 0.95
    assert (labels[own >= own[np.flatnonzero(taken)[0] - 1]] == 0).mean() < 0.95
    assert (first.images, first.precision) == (taken.sum(), pytest.approx((labels[taken] == 0).mean()))
    assert second.recall is not None
    few = class_thresholds(probabilities[:9], labels[:9], "ab")
    assert [entry.probability for entry in few] == [None, None]


def test_of_equal_logits_the_first_class_is_predicted() -> None:
    assert score(np.zeros((3, 4), np.float32), np.array([0, 0, 1]), "abcd").accuracy == pytest.approx(2 / 3)


def shown(scores: Scores, **options: Any) -> str:
    console = Console(width=120, force_terminal=False, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_scores("title", scores, options.get("notes", ()), options.get("unreadable", ()), console, full=True)
    console.file.close()
    return console.export_text()


def test_hostile_class_names_are_shown_as_text() -> None:
    names = ["[red]a[/red]", "\x1b[2Jb", "c\nd"]
    scores = score(np.eye(3, dtype=np.float32), np.arange(3), names)
    text = shown(scores, notes=["\x1b[1m"], unreadable=[("[x]\n", "\x07")])
    assert "[red]a[/red]" in text
    assert "\\x1b[2Jb" in text
    assert "c\\nd" in text
    assert "not readable, skipped: [x]\\n: \\x07" in text
    assert "\x1b" not in text


def test_many_classes_show_their_commonest_confusions() -> None:
    labels = np.arange(40) % 20
    logits = np.eye(20, dtype=np.float32)[np.where(labels == 3, 4, labels)]
    text = shown(score(logits, labels, [f"class{index}" for index in range(20)]))
    assert "commonest confusions" in text
    assert any(line.split() == ["class3", "class4", "2"] for line in text.splitlines())


def test_a_matrix_too_large_is_left_out() -> None:
    found = score(np.zeros((1, 2_001), np.float32), np.array([0]), [str(index) for index in range(2_001)])
    assert found.confusion is None


def test_classes_the_model_lacks_are_refused_on_both_sides(tiny_folder: Path, plugins: Plugins) -> None:
    with pytest.raises(InvalidDatasetError) as caught:
        open_labelled(str(tiny_folder), ("blue", "green", "yellow"), plugins)
    assert "only in the data: red; only in the model: yellow" in str(caught.value)


def test_a_subset_of_the_classes_is_scored_with_a_note(tiny_folder: Path, plugins: Plugins) -> None:
    data = open_labelled(str(tiny_folder), ("blue", "green", "red", "white", "yellow"), plugins)
    assert data.split == "test"
    assert "2 of the model's classes have no images here: white, yellow" in data.notes


def test_the_split_is_the_test_split_else_val_else_all(tiny_folder: Path, plugins: Plugins) -> None:
    classes = ("blue", "green", "red")
    counts = {}
    for split in (None, "train", "val", "test", "all"):
        found = open_labelled(str(tiny_folder), classes, plugins, split=split)
        counts[split] = (found.split, len(found.labels))
    assert counts == {
        None: ("test", 12),
        "train": ("train", 24),
        "val": ("val", 12),
        "test": ("test", 12),
        "all": ("all", 48),
    }
    plain = open_labelled(str(tiny_folder / "train"), classes, plugins)
    assert (plain.split, len(plain.labels)) == ("all", 24)
    assert any("the data have no splits" in note for note in plain.notes)
    with pytest.raises(InvalidDatasetError, match="'val' of .*, which has no splits"):
        open_labelled(str(tiny_folder / "train"), classes, plugins, split="val")


def test_no_readable_image_is_an_error(tiny_folder: Path, tmp_path: Path, plugins: Plugins) -> None:
    model = load_model(make_model(tmp_path / "m", plugins), device="cpu", plugins=plugins)
    for path in (tiny_folder / "test").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(InvalidDatasetError, match="no image is readable"):
        run_model(model, open_labelled(str(tiny_folder), model.classes, plugins))


def test_evaluate_prints_tables_or_json(tiny_folder: Path, tmp_path: Path, plugins: Plugins, runner: CliRunner) -> None:
    make_model(tmp_path / "m", plugins)
    words = [str(tmp_path / "m"), str(tiny_folder), "--plugin", plugins.files[0], "--device", "cpu"]
    done = runner.invoke(evaluate, words, standalone_mode=False)
    assert done.return_value == 0
    assert "split test" in done.stdout
    assert "how often a probability is right" not in done.stdout
    assert "recall" in done.stdout
    done = runner.invoke(evaluate, [*words, "--full"], standalone_mode=False)
    assert "confusion matrix" in done.stdout
    assert "accuracy if only confident answers are accepted" in done.stdout
    assert "how often a probability is right" in done.stdout
    shares = runner.invoke(evaluate, [*words, "--normalised"], standalone_mode=False).stdout
    assert "confusion matrix, shares of the true class" in shares
    found = json.loads(runner.invoke(evaluate, [*words, "--json"], standalone_mode=False).stdout)
    assert found["images"] == 12
    assert len(found["thresholds"]) == 7
    assert [entry["name"] for entry in found["per_class"]] == ["blue", "green", "red"]
    assert np.array(found["confusion"]).sum() == 12
    (tiny_folder / "test" / "red" / "bad.png").write_text("no image")
    done = runner.invoke(evaluate, words, standalone_mode=False)
    assert done.return_value == 1
    assert "not readable, skipped: test/red/bad.png" in done.stdout


def test_calibration_is_its_definition() -> None:
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(300, 4)).astype(np.float32) * 3, rng.integers(0, 4, 300)
    found = calibrate(logits, labels)
    exps = np.exp(logits.astype(np.float64))
    confidence = (exps / exps.sum(1, keepdims=True)).max(1)
    right = logits.argmax(1) == labels
    ece = 0.0
    for index in range(15):
        inside = (confidence >= index / 15) & ((confidence < (index + 1) / 15) | (index == 14))
        if inside.any():
            ece += inside.sum() * abs(confidence[inside].mean() - right[inside].mean()) / 300
    assert found.ece == pytest.approx(ece, abs=1e-6)
    assert sum(one.images for one in found.bins) == 300


def test_a_model_that_is_always_sure_and_right_is_calibrated() -> None:
    assert calibrate(np.eye(3, dtype=np.float32) * 1000, np.arange(3)).ece == 0


def scored(logits: Any, labels: list[int], names: tuple[str, ...] = ("a", "b", "c", "d")) -> Scored:
    return Scored(names, np.array(logits, np.float32), np.array(labels), ())


def test_two_models_are_compared_image_by_image() -> None:
    right, wrong = [1.0, 0.0], [0.0, 1.0]
    found = compare_models(scored([right] * 4, [0] * 4), scored([right, wrong, wrong, wrong], [0] * 4))
    assert (found.only_first_right, found.only_second_right, found.accuracy_difference) == (3, 0, 0.75)
    assert found.p_value == pytest.approx(2 * 0.5**3)
    assert found.loss_difference == pytest.approx(-0.75)
    assert found.loss_standard_error == pytest.approx(0.5 / 2)
    same = compare_models(scored([right] * 4, [0] * 4), scored([right] * 4, [0] * 4))
    assert (same.p_value, same.loss_difference) == (1.0, 0.0)


def test_models_that_saw_other_images_are_not_compared() -> None:
    with pytest.raises(InvalidDatasetError, match="1 and 1 images; only one saw a, b"):
        compare_models(scored([[1, 0]], [0], ("a",)), scored([[1, 0]], [0], ("b",)))


def test_another_models_classes_may_stand_in_another_order(
    tiny_folder: Path, tmp_path: Path, plugins: Plugins, runner: CliRunner
) -> None:
    one, two = (
        make_model(tmp_path / "one", plugins),
        make_model(tmp_path / "two", plugins, classes=("red", "green", "blue")),
    )
    words = [str(one), str(tiny_folder), "--plugin", plugins.files[0], "--device", "cpu", "--compare"]
    found = json.loads(runner.invoke(evaluate, [*words, str(two), "--json"], standalone_mode=False).stdout)
    itself = json.loads(runner.invoke(evaluate, [*words, str(one), "--json"], standalone_mode=False).stdout)
    other = json.loads(runner.invoke(evaluate, [str(two), *words[1:-1], "--json"], standalone_mode=False).stdout)
    assert found["comparison"]["accuracy_difference"] == pytest.approx(found["accuracy"] - other["accuracy"])
    assert found["comparison"]["loss_difference"] == pytest.approx(found["loss"] - other["loss"])
    assert (itself["comparison"]["p_value"], other["comparison"]) == (1.0, None)
    text = runner.invoke(evaluate, [*words, str(two)], standalone_mode=False).stdout
    assert "compared with the other model on the same 12 images" in text
