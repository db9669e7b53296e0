"""One temperature: fitted as defined, kept whole, applied everywhere, and never on test images."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import noise_files, write_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from test_serving import LIMITS, ask, serving
from tiny import make_info, make_model, make_state

from automl_pt.cli.evaluate import command as evaluate
from automl_pt.cli.predict import command as predict
from automl_pt.core.errors import InvalidDatasetError, InvalidModelDirectoryError, UsageError
from automl_pt.model.directory import TEMPERATURE, publish, save_model
from automl_pt.model.load import load_model
from automl_pt.model.scoring import cross_entropy
from automl_pt.model.softmax import softmax
from automl_pt.model.temperature import HIGHEST, LOWEST, Temperature, calibrated, fit, save_temperature, uncertain
from automl_pt.plugins.manager import Plugins
from automl_pt.runs.run import train


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, plugins: Plugins) -> tuple[Path, Path]:
    """Return a model that has learned something, and a folder in which every fifth validation image is mislabelled."""
    root = tmp_path_factory.mktemp("learned")
    images = write_folder(root / "images", {"train": 8, "val": 20, "test": 4})
    for name, other in (("blue", "green"), ("green", "red"), ("red", "blue")):
        for index in range(0, 20, 5):
            (images / "val" / name / f"{index:03}.png").rename(images / "val" / other / f"wrong-{name}-{index}.png")
    settings: dict[str, Any] = {"epochs": 4, "lr": 0.02, "batch_size": 4, "device": "cpu", "threads": 1}
    assert list(train(str(images), output=root / "run", plugins=plugins, backbone="tiny", **settings))
    return root / "run", images


def keep(directory: Path, temperature: float = 2.5) -> None:
    """Keep a made-up temperature beside the model in `directory`."""
    digest = json.loads((directory / "model.json").read_text())["weights"]["sha256"]
    save_temperature(directory, Temperature(temperature, digest, 12, "data", (1.0, 0.9), (0.2, 0.1)))


def call(runner: CliRunner, command: Any, plugins: Plugins, *words: object) -> str:
    given = [*map(str, words), "--plugin", plugins.files[0], "--device", "cpu"]
    done = runner.invoke(command, given, standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.output


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.2, 8.0))
def test_the_temperature_has_the_lowest_cross_entropy(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(400, 4)).astype(np.float32)
    labels = np.array([rng.choice(4, p=row / row.sum()) for row in np.exp(logits.astype(np.float64))])
    found = fit(logits * np.float32(scale), labels)
    # the labels were drawn from these logits: what was multiplied in is found again
    assert found == pytest.approx(scale, rel=0.5)
    lowest = cross_entropy(logits * np.float32(scale / found), labels)
    for other in (found * 0.9, found * 1.1, 1.0):
        assert lowest <= cross_entropy(logits * np.float32(scale / other), labels) + 1e-6


def test_where_all_or_nothing_is_right_the_bounds_hold() -> None:
    sure = np.eye(3, dtype=np.float32)
    # below this the loss is 0 in every digit
    assert LOWEST <= fit(sure, np.arange(3)) < 0.05
    assert fit(-sure, np.arange(3)) == pytest.approx(HIGHEST, rel=1e-3)


@given(st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=6), st.floats(LOWEST, HIGHEST))
def test_no_temperature_puts_another_class_first(values: list[float], temperature: float) -> None:
    row = np.array(values, np.float32)
    probabilities = softmax(row, temperature)
    assert probabilities[row.argmax()] == probabilities.max()


def test_calibrating_keeps_a_temperature_that_all_commands_apply(
    learned: tuple[Path, Path], plugins: Plugins, runner: CliRunner
) -> None:
    directory, images = learned
    words = (directory, images, "--json")
    before = json.loads(call(runner, evaluate, plugins, *words, "--split", "val"))
    found = json.loads(call(runner, evaluate, plugins, *words, "--calibrate"))
    kept, temperature = found["calibrated"], found["temperature"]
    assert (found["split"], kept["images"], kept["temperature"]) == ("val", 60, temperature)
    assert (before["temperature"], before["calibrated"]) == (1.0, None)
    assert (kept["loss"], kept["ece"]) == (
        [before["loss"], pytest.approx(found["loss"])],
        [before["calibration"]["ece"], pytest.approx(found["calibration"]["ece"])],
    )
    assert found["loss"] < before["loss"]
    for same in ("accuracy", "confusion", "per_class"):
        assert found[same] == before[same]
    assert f"probabilities are those at temperature {temperature:.4g}" in found["notes"]
    again = json.loads(call(runner, evaluate, plugins, *words, "--split", "val"))
    assert (again["loss"], again["temperature"]) == (found["loss"], temperature)
    raw = json.loads(call(runner, evaluate, plugins, *words, "--split", "val", "--no-temperature"))
    assert raw["loss"] == before["loss"]
    shown = call(runner, evaluate, plugins, *words[:2], "--calibrate")
    assert "fitted on these 60 images; loss" in shown


def test_predict_and_serve_apply_it_unless_told_otherwise(tmp_path: Path, plugins: Plugins, runner: CliRunner) -> None:
    directory, (path,) = make_model(tmp_path / "m", plugins), noise_files(tmp_path / "x", 1)
    raw = load_model(directory, device="cpu", plugins=plugins)
    keep(directory)
    model = load_model(directory, device="cpu", plugins=plugins)
    assert (raw.temperature, model.temperature) == (1.0, 2.5)
    assert load_model(directory, device="cpu", plugins=plugins, calibrated=False).temperature == 1.0
    wanted = softmax(raw.logits([path]) / np.float32(2.5))[0]
    assert np.allclose(model.predict([path])[0], wanted, atol=1e-6)
    said = call(runner, predict, plugins, directory, path, "-o", tmp_path / "p.csv")
    assert "probabilities at temperature 2.5" in said
    call(runner, predict, plugins, directory, path, "-o", tmp_path / "raw.csv", "--no-temperature")
    found = {}
    for name in ("p", "raw"):
        with open(tmp_path / f"{name}.csv", newline="") as stream:
            found[name] = next(csv.DictReader(stream))
    assert found["p"]["class"] == found["raw"]["class"]
    assert float(found["p"]["probability"]) == pytest.approx(wanted.max(), abs=1e-5)
    assert float(found["raw"]["probability"]) == pytest.approx(raw.predict([path]).max(), abs=1e-5)
    with serving(model, LIMITS) as port:
        answer = ask(port, "/predict", path.read_bytes(), content_type="image/png").json
        assert answer["probability"] == pytest.approx(wanted.max(), abs=1e-6)
        assert ask(port, "/model").json["temperature"] == 2.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--split", "test"], "test images must not be fitted to\n  given: --split test"),
        (["--split", "train"], "too sure of its training images\n  given: --split train"),
        (["--split", "all"], "test images must not be fitted to\n  given: --split all of .*, which has a test split"),
    ],
)
def test_a_temperature_is_fitted_on_validation_images_alone(
    tiny_folder: Path, tmp_path: Path, plugins: Plugins, runner: CliRunner, words: list[str], message: str
) -> None:
    directory = make_model(tmp_path / "m", plugins)
    with pytest.raises(UsageError, match=message):
        call(runner, evaluate, plugins, directory, tiny_folder, "--calibrate", *words)
    assert not (directory / TEMPERATURE).exists()


def test_data_without_splits_are_calibrated_on_when_all_are_named(
    learned: tuple[Path, Path], tmp_path: Path, plugins: Plugins, runner: CliRunner
) -> None:
    directory, images = learned
    publish(directory, tmp_path / "m")
    words = (tmp_path / "m", images / "val", "--calibrate", "--json")
    with pytest.raises(InvalidDatasetError, match="'val' of .*, which has no splits"):
        call(runner, evaluate, plugins, *words)
    assert json.loads(call(runner, evaluate, plugins, *words, "--split", "all"))["calibrated"]["images"] == 60


@pytest.mark.parametrize(
    ("wrong", "images", "reason"),
    [
        (0, 12, "none of 12 images is wrong"),
        (12, 12, "none of 12 images is right"),
        (1, 1, "none of 1 image is right"),
        (1, 6, "6 images, 1 of them wrong, do not determine it within a factor of 2"),
        (40, 200, None),
    ],
)
def test_images_that_cannot_tell_a_temperature_keep_none(wrong: int, images: int, reason: str | None) -> None:
    labels = np.arange(images) % 2
    logits = np.where(np.eye(2)[labels] > 0, 2.0, -2.0).astype(np.float32)
    logits[:wrong] *= -1
    found = uncertain(logits, labels, fit(logits, labels))
    assert found is None if reason is None else (found or "").startswith(reason)


def test_a_calibration_that_tells_nothing_leaves_what_is_there(
    learned: tuple[Path, Path], tmp_path: Path, plugins: Plugins, runner: CliRunner
) -> None:
    directory, images = learned
    publish(directory, tmp_path / "m")
    words = (tmp_path / "m", images / "train", "--calibrate", "--json", "--split", "all")
    found = json.loads(call(runner, evaluate, plugins, *words))
    assert (found["calibrated"], found["temperature"]) == (None, 1.0)
    assert any(note.startswith("no temperature was stored: none of 24 images is wrong") for note in found["notes"])
    assert not (tmp_path / "m" / TEMPERATURE).exists()
    keep(tmp_path / "m")
    again = json.loads(call(runner, evaluate, plugins, *words))
    assert again["notes"][-1].endswith("the stored one, 2.5, remains")
    assert load_model(tmp_path / "m", device="cpu", plugins=plugins).temperature == 2.5


DAMAGED: dict[str, Any] = {
    "nonsense": "{",
    "a list": [],
    "deep": "[" * 60_000,
    "another format": {"format": 2},
    "text": {"temperature": "2"},
    "true": {"temperature": True},
    "zero": {"temperature": 0},
    "negative": {"temperature": -1},
    "huge": {"temperature": 1e9},
    "not finite": '{"temperature": NaN}',
    "no loss": {"loss": [1]},
    "no weights": {"weights": 5},
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_temperature_is_refused(tmp_path: Path, plugins: Plugins, name: str) -> None:
    directory = make_model(tmp_path, plugins)
    keep(directory)
    values, change = json.loads((directory / TEMPERATURE).read_text()), DAMAGED[name]
    if name == "not finite":
        change = json.dumps({**values, "temperature": float("nan")})
    changed = change if isinstance(change, str) else json.dumps({**values, **change} if change else change)
    (directory / TEMPERATURE).write_text(changed)
    with pytest.raises(InvalidModelDirectoryError, match=r"temperature.json is damaged(.|\n)*remove temperature.json"):
        load_model(directory, device="cpu", plugins=plugins)
    assert load_model(directory, device="cpu", plugins=plugins, calibrated=False).temperature == 1.0


def test_a_large_file_or_a_link_is_not_read(tmp_path: Path, plugins: Plugins) -> None:
    directory = make_model(tmp_path / "m", plugins)
    (directory / TEMPERATURE).write_text(" " * 70_000)
    with pytest.raises(InvalidModelDirectoryError, match="70,000 bytes; 65,536 are allowed"):
        load_model(directory, device="cpu", plugins=plugins)
    (directory / TEMPERATURE).unlink()
    (directory / TEMPERATURE).symlink_to(directory / "model.json")
    with pytest.raises(InvalidModelDirectoryError, match="links are not followed"):
        load_model(directory, device="cpu", plugins=plugins)


def test_new_weights_take_the_temperature_away_and_the_same_ones_do_not(tmp_path: Path, plugins: Plugins) -> None:
    directory = make_model(tmp_path / "m", plugins)
    keep(directory)
    publish(directory, directory)
    assert load_model(directory, device="cpu", plugins=plugins).temperature == 2.5
    text = (directory / TEMPERATURE).read_text()
    save_model(directory, make_state(plugins, seed=2), make_info())
    assert not (directory / TEMPERATURE).exists()
    # one that came back from elsewhere was fitted for other weights
    (directory / TEMPERATURE).write_text(text)
    assert load_model(directory, device="cpu", plugins=plugins).temperature == 1.0


def test_what_is_kept_says_what_it_did(tmp_path: Path, plugins: Plugins) -> None:
    directory = make_model(tmp_path, plugins)
    logits = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32) * 5
    found = calibrated(directory, logits, np.random.default_rng(2).integers(0, 3, 50), "somewhere")
    assert found.temperature > 1
    assert found.loss[1] < found.loss[0]
    assert (found.images, found.data) == (50, "somewhere")
