"""When an answer is unsure: the promise holds on new images, all ways show it, and damaged files are refused."""

from __future__ import annotations

import csv
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import noise_files, write_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load, save
from test_serving import ask, serving
from tiny import load_tiny, make_info, make_model

from automl_pt.cli.evaluate import command as evaluate_command
from automl_pt.cli.predict import command as predict_command
from automl_pt.core.errors import InvalidModelDirectoryError, UsageError
from automl_pt.model.directory import publish
from automl_pt.model.evaluate import evaluate
from automl_pt.model.info import UNSURE
from automl_pt.model.load import load_model
from automl_pt.model.novelty import FEWEST, fit_novelty
from automl_pt.model.unsure import (
    NONE,
    SEVERAL,
    UNLIKE,
    Measured,
    UnsureRule,
    conformal_threshold,
    fewest_images,
    measure,
    told,
)
from automl_pt.plugins.manager import Plugins
from automl_pt.runs.run import train


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory, plugins: Plugins) -> tuple[Path, Path]:
    """Return a trained model with a rule, and its images, a tenth of which have a wrong label."""
    root = tmp_path_factory.mktemp("fitted")
    images = write_folder(root / "images", {"train": 8, "val": 20, "test": 20})
    for split in ("val", "test"):
        for name, other in (("blue", "green"), ("green", "red"), ("red", "blue")):
            for index in (3, 13):
                (images / split / name / f"{index:03}.png").rename(images / split / other / f"wrong-{name}-{index}.png")
    given: dict[str, Any] = {"epochs": 4, "lr": 0.02, "batch_size": 4, "device": "cpu", "threads": 1}
    assert list(train(str(images), output=root / "run", plugins=plugins, backbone="tiny", **given))
    found = evaluate(root / "run", str(images), plugins, calibrate=True, max_error=0.15, device="cpu")
    assert found.rule is not None
    return root / "run", images


def rule(**changes: Any) -> UnsureRule:
    return replace(UnsureRule("w", 0.05, 0.2, 1.0, 100, "photos, split val"), **changes)


def logits(*shares: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.log(np.array([shares], np.float32))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.1, 0.3]), st.integers(60, 200))
def test_new_images_miss_their_class_no_more_often_than_promised(seed: int, error: float, count: int) -> None:
    # over many splits the mean coverage is within [1 - error, 1 - error + 1 / (count + 1)]
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(4), (200, count + 1)).astype(np.float32)
    labels = (shares.cumsum(axis=2) < rng.random((200, count + 1, 1))).sum(axis=2).clip(max=3)
    misses = []
    for rows, own in zip(shares, labels, strict=True):
        threshold = conformal_threshold(rows[:-1], own[:-1], error)
        assert threshold is not None
        misses.append(rows[-1, own[-1]] < threshold)
    spread = 5 * (error * (1 - error) / 200) ** 0.5
    assert error - 1 / (count + 1) - spread <= np.mean(misses) <= error + spread


@pytest.mark.parametrize(("error", "fewest"), [(0.05, 19), (0.1, 9), (0.01, 99), (0.5, 1)])
def test_a_threshold_needs_enough_images(error: float, fewest: int) -> None:
    assert fewest_images(error) == fewest
    shares = np.full((fewest, 2), 0.5, np.float32)
    labels = np.zeros(fewest, np.int64)
    assert conformal_threshold(shares, labels, error) == 0.5
    assert conformal_threshold(shares[1:], labels[1:], error) is None


@pytest.mark.parametrize(
    ("shares", "threshold", "unsure", "candidates"),
    [
        ((0.9, 0.06, 0.04), 0.2, None, (0,)),
        ((0.1, 0.6, 0.3), 0.2, SEVERAL, (1, 2)),
        ((0.8, 0.1, 0.1), 0.9, NONE, ()),
        # one candidate, but more likely wrong than right
        ((0.219, *[0.1116] * 7), 0.15, NONE, (0,)),
    ],
)
def test_an_answer_is_sure_if_exactly_one_class_is_likely(
    shares: tuple[float, ...], threshold: float, unsure: str | None, candidates: tuple[int, ...]
) -> None:
    (answer,) = rule(threshold=threshold).answers(logits(*shares))
    assert (answer.unsure, answer.candidates, answer.novelty) == (unsure, candidates, None)


def test_what_is_far_from_the_bank_is_unlike_and_what_is_near_is_not() -> None:
    rng = np.random.default_rng(1)
    near = rng.normal([4, 4, 0, 0, 0, 0], 0.3, (300, 6)).astype(np.float32)
    novelty = fit_novelty(near[:200])
    assert novelty is not None
    assert 0.01 <= (novelty.score(near[200:]) > 1).mean() <= 0.15
    far = rng.normal([0, 0, 0, 4, 4, 0], 0.3, (50, 6)).astype(np.float32)
    assert (novelty.score(far) > 1).all()
    (answer,) = rule(novelty=novelty).answers(logits(0.99, 0.01), far[:1])
    assert answer.unsure == UNLIKE


@pytest.mark.parametrize(
    "features",
    [
        np.ones((FEWEST - 1, 3), np.float32),
        np.ones((50, 3), np.float32),
        np.full((50, 3), np.nan, np.float32),
        np.zeros((50, 3), np.float32),
    ],
)
def test_features_that_determine_no_limit_give_none(features: Any) -> None:
    assert fit_novelty(features) is None


def test_the_rule_is_fitted_on_validation_images_measured_on_test_images_and_kept(
    fitted: tuple[Path, Path], plugins: Plugins
) -> None:
    run, images = fitted
    model = load_model(run, device="cpu", plugins=plugins)
    assert model.rule is not None
    assert model.rule.measured is not None
    assert (model.rule.images, model.rule.measured.images, model.rule.measured.split) == (60, 60, "test")
    assert model.rule.novelty is not None
    assert model.rule.novelty.bank.shape == (60, 144)
    again = evaluate(run, str(images), plugins, device="cpu")
    assert again.unsure == model.rule.measured
    assert again.to_dict()["unsure"]["coverage"] >= 0.75
    card = (run / "README.md").read_text()
    assert "## Unsure answers" in card
    assert told(model.rule.measured, 0.15)[0] in card


def test_every_way_to_use_the_model_gives_the_same_answers(
    fitted: tuple[Path, Path], plugins: Plugins, tmp_path: Path
) -> None:
    run, images = fitted
    model = load_model(run, device="cpu", plugins=plugins)
    paths = [*sorted((images / "test").rglob("*.png"))[:6], tmp_path / "stripes.png"]
    Image.fromarray(np.tile(np.array([[[255, 255, 0]], [[0, 0, 255]]], np.uint8).repeat(4, 0), (2, 16, 1))).save(
        paths[-1]
    )
    answers = model.answers(paths)
    assert answers[-1].unsure == UNLIKE
    words = [str(run), *map(str, paths), "--plugin", plugins.files[0], "--device", "cpu", "-o"]
    for name in ("x.csv", "x.jsonl", "x.parquet"):
        done = CliRunner().invoke(predict_command, [*words, str(tmp_path / name)], standalone_mode=False)
        assert done.exception is None
        assert f"unsure: {sum(one.unsure is not None for one in answers)} of 7 answers" in done.stderr
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [row["unsure"] for row in rows] == [answer.unsure for answer in answers]
    assert [row["candidates"] for row in rows] == [[model.classes[i] for i in one.candidates] for one in answers]
    with (tmp_path / "x.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [row["unsure"] or None for row in table] == [answer.unsure for answer in answers]
    assert [float(row["novelty"]) for row in table] == pytest.approx([one.novelty for one in answers], rel=1e-4)
    with serving(model) as port:
        sent = json.loads(ask(port, "/predict", paths[-1].read_bytes(), content_type="image/png").body)
        assert (sent["unsure"], sent["candidates"]) == (rows[-1]["unsure"], rows[-1]["candidates"])


def test_a_model_without_a_rule_has_the_columns_of_before(tmp_path: Path, plugins: Plugins) -> None:
    model = make_model(tmp_path / "m", plugins)
    (path,) = noise_files(tmp_path / "images", 1)
    words = [str(model), str(path), "--plugin", plugins.files[0], "--device", "cpu"]
    done = CliRunner().invoke(predict_command, words, standalone_mode=False)
    assert done.stdout.splitlines()[0] == "path,class,probability,error,p:blue,p:green,p:red"
    assert "unsure" not in done.stderr
    with pytest.raises(UsageError, match=r"(?s)no rule for unsure answers.*--calibrate"):
        load_model(model, device="cpu", plugins=plugins).answers([path])


def test_new_weights_remove_the_rule(fitted: tuple[Path, Path], plugins: Plugins, tmp_path: Path) -> None:
    target = tmp_path / "model"
    publish(fitted[0], target)
    (target / UNSURE).write_bytes((fitted[0] / UNSURE).read_bytes())
    assert load_model(target, device="cpu", plugins=plugins).rule is not None
    publish(make_model(tmp_path / "other", plugins), target)
    assert not (target / UNSURE).exists()
    # and one that was fitted for other weights is not used
    (target / UNSURE).write_bytes((fitted[0] / UNSURE).read_bytes())
    assert load_model(target, device="cpu", plugins=plugins).rule is None


def _changed(content: bytes, **changes: Any) -> bytes:
    bank = changes.pop("bank", load(content)["bank"])
    length = int.from_bytes(content[:8], "little")
    values = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["rule"])
    return bytes(save({"bank": bank}, metadata={"rule": json.dumps({**values, **changes})}))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:40],
        lambda content: b"",
        lambda content: b"\xff" * 64,
        lambda content: _changed(content, format=99),
        lambda content: _changed(content, threshold=7),
        lambda content: _changed(content, temperature=0),
        lambda content: _changed(content, max_error="5 %"),
        lambda content: _changed(content, limit=0.0),
        lambda content: _changed(content, neighbour=10**6),
        lambda content: _changed(content, measured={"images": -1}),
        lambda content: _changed(content, more="x"),
        lambda content: _changed(content, bank=np.zeros((60, 3), np.float16)),
        lambda content: _changed(content, bank=np.full((60, 144), np.inf, np.float16)),
    ],
)
def test_a_damaged_rule_is_refused_with_the_remedy(
    fitted: tuple[Path, Path], plugins: Plugins, tmp_path: Path, damage: Any
) -> None:
    publish(fitted[0], tmp_path / "model")
    (tmp_path / "model" / UNSURE).write_bytes(damage((fitted[0] / UNSURE).read_bytes()))
    with pytest.raises(InvalidModelDirectoryError, match=rf"(?s){UNSURE} is damaged.*remove {UNSURE}"):
        load_model(tmp_path / "model", device="cpu", plugins=plugins)


def test_too_few_images_are_noted_and_nothing_is_kept(tmp_path: Path, plugins: Plugins) -> None:
    model = make_model(tmp_path / "m", plugins)
    images = write_folder(tmp_path / "images", {"train": 1, "val": 5})
    found = evaluate(model, str(images), plugins, calibrate=True, device="cpu")
    assert any("no rule for unsure answers: 15 images" in note and "at least 19" in note for note in found.notes)
    assert not (model / UNSURE).exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--max-error", "0.1"], "--max-error belongs to --calibrate"), (["--calibrate", "--max-error", "1"], "below 1")],
)
def test_a_wrong_largest_error_is_refused(
    fitted: tuple[Path, Path], plugins: Plugins, words: list[str], message: str
) -> None:
    given = [*map(str, fitted), *words, "--plugin", plugins.files[0]]
    done = CliRunner().invoke(evaluate_command, given, standalone_mode=False)
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)


def test_two_threads_keep_their_own_features(fitted: tuple[Path, Path], plugins: Plugins) -> None:
    model = load_model(fitted[0], device="cpu", plugins=plugins)
    pixels = model.pixels(sorted((fitted[1] / "test").rglob("*.png")))
    wanted = model.forward_with_features(pixels)
    assert np.array_equal(wanted[0], model.forward(pixels))
    found: list[bool] = []

    def work() -> None:
        for _ in range(20):
            logits, features = model.forward_with_features(pixels)
            found.append(np.array_equal(features, wanted[1]) and np.array_equal(logits, wanted[0]))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 60
    assert all(found)


def test_a_network_without_a_linear_head_is_unsure_by_probability_alone(tmp_path: Path) -> None:
    text = """
from torch import nn
from automl_pt import Backbone, hookimpl

@hookimpl
def register_backbones():
    return [Backbone("tiny", lambda num_classes, pretrained: nn.Sequential(
        nn.Conv2d(3, num_classes, 8), nn.Flatten()), image_size=8, head="0")]
"""
    plugins = load_tiny(tmp_path, text)
    from automl_pt.backbones.build import build_model
    from automl_pt.model.directory import save_model

    save_model(tmp_path / "m", build_model(plugins.backbone("tiny"), 3, 8, seed=1).state_dict(), make_info())
    images = write_folder(tmp_path / "images", {"train": 1, "val": 10})
    found = evaluate(tmp_path / "m", str(images), plugins, calibrate=True, device="cpu")
    assert found.rule is not None
    assert found.rule.novelty is None
    assert any("by probability alone" in note for note in found.notes)
    model = load_model(tmp_path / "m", device="cpu", plugins=plugins)
    assert all(one.novelty is None for one in model.answers(sorted(images.rglob("*.png"))))


def test_figures_are_told_for_a_person() -> None:
    lines = told(Measured(100, 70, 68, 96, 2, "val"), 0.05)
    assert lines[0].startswith("sure answers: 70 of 100 images (70.0 %), of which 97.1 % are right (95 % interval 90.")
    assert "the true class is among the candidates of 96.0 %" in lines[1]
    assert "fitted on these images" in lines[1]
    assert lines[2] == "unlike known images: 2 of 100"
    nothing = measure(rule().answers(logits(0.3, 0.35, 0.35)), logits(0.3, 0.35, 0.35), np.array([0]), "test")
    assert told(nothing, 0.05)[0] == "sure answers: 0 of 1 images (0.0 %)"
