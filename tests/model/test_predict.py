"""Prediction: what validation computes, over any number of files, in any output format, whatever their names."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from tiny import PLUGIN, hungry, load_tiny, make_model

from automl_pt.cli.evaluate import command as evaluate
from automl_pt.cli.predict import command as predict
from automl_pt.core.errors import InstallationError, OutputError, StudyError, UsageError
from automl_pt.model.evaluate import evaluate as evaluate_model
from automl_pt.model.labelled import manifest_of, open_labelled, run_model
from automl_pt.model.load import Model, load_model
from automl_pt.model.predict import AHEAD, Prediction, outcomes, predict_files
from automl_pt.model.prediction_files import CsvWriter, JsonWriter, PredictionColumns, check_output, open_file
from automl_pt.model.scoring import score
from automl_pt.model.softmax import softmax
from automl_pt.plugins.manager import Plugins
from automl_pt.runs import run

HOSTILE = (
    "<script>alert(1)</script>",
    "=cmd|'/c calc'!A1",
    "+1",
    "-1",
    "@SUM(A1)",
    "＝1＋1",
    "\tx",
    'a\nb,"c"',
    "\x1b[2J\x1b]0;owned\x07",
    "\u202egnp.exe",
    "😀",
    "[red]x[/red]",
)


@pytest.fixture
def model(tmp_path: Path, plugins: Plugins) -> Model:
    return load_model(make_model(tmp_path / "model", plugins), device="cpu", plugins=plugins)


def write_images(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{index:03}.png" for index in range(count)]
    for index, path in enumerate(paths):
        noise = np.random.default_rng(index).integers(0, 256, (9, 10, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    return paths


def call(runner: CliRunner, command: Any, plugins: Plugins, *words: object, code: int = 0, **extra: Any) -> str:
    options = [word for file in plugins.files for word in ("--plugin", file)]
    done = runner.invoke(command, [*options, "--device", "cpu", *map(str, words)], standalone_mode=False, **extra)
    if done.exception is not None:
        raise done.exception
    assert done.return_value == code
    return done.stdout


def test_prediction_equals_validation(tiny_folder: Path, tmp_path: Path, plugins: Plugins, runner: CliRunner) -> None:
    settings: dict[str, Any] = {"backbone": "tiny", "epochs": 3, "batch_size": 4, "lr": 0.001, "threads": 1}
    settings["device"] = "cpu"
    results = list(run.train(str(tiny_folder), output=tmp_path / "run", plugins=plugins, **settings))
    kept = next(result for result in reversed(results) if result.is_best)
    assert kept.val_accuracy > 0
    call(runner, predict, plugins, tmp_path / "run", tiny_folder / "val", "-o", tmp_path / "p.csv")
    with open(tmp_path / "p.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 12
    assert sum(row["class"] == Path(row["path"]).parent.name for row in rows) / len(rows) == kept.val_accuracy
    found = json.loads(call(runner, evaluate, plugins, tmp_path / "run", tiny_folder, "--split", "val", "--json"))
    assert (found["accuracy"], found["loss"]) == (kept.val_accuracy, kept.val_loss)
    loaded = load_model(tmp_path / "run", device="cpu", plugins=plugins)
    assert loaded.info.metrics["val_accuracy"] == kept.val_accuracy


def test_files_are_predicted_in_order_with_a_few_batches_in_memory(tmp_path: Path, model: Model) -> None:
    paths = write_images(tmp_path / "x", 23)
    taken = 0

    def source() -> Any:
        nonlocal taken
        for path in paths:
            taken += 1
            yield path

    predictions = predict_files(model, source(), batch_size=2, threads=2)
    first = next(predictions)
    assert taken <= 2 * (AHEAD + 1)
    found = [first, *predictions]
    assert [prediction.path for prediction in found] == paths
    rows = np.stack([prediction.probabilities for prediction in found if prediction.probabilities is not None])
    assert np.allclose(rows, model.predict(paths), atol=1e-6)
    assert np.allclose(rows.sum(1), 1, atol=1e-6)


def test_leaving_a_prediction_early_stops_its_threads(tmp_path: Path, model: Model) -> None:
    predictions = predict_files(model, write_images(tmp_path / "x", 30), batch_size=4, threads=2)
    next(predictions)
    predictions.close()  # type: ignore[attr-defined]  # a generator
    import threading

    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("decode", "network"))]


def test_unreadable_files_become_rows_with_their_reason(
    tmp_path: Path, model: Model, plugins: Plugins, runner: CliRunner
) -> None:
    good = write_images(tmp_path / "x", 2)
    (tmp_path / "x" / "bad.jpg").write_text("<html>")
    (tmp_path / "x" / "empty.png").write_bytes(b"")
    words = (tmp_path / "model", tmp_path / "x", "--batch-size", 1)
    text = call(runner, predict, plugins, *words, code=1)
    rows = {Path(row["path"]).name: row for row in csv.DictReader(io.StringIO(text))}
    assert len(rows) == 4
    assert rows["bad.jpg"]["error"].startswith("not a JPEG, PNG, WebP, BMP, GIF or TIFF file")
    assert rows["empty.png"]["error"] == "the file is empty (0 bytes)"
    assert rows["bad.jpg"]["class"] == rows["bad.jpg"]["probability"] == rows["bad.jpg"]["p:red"] == ""
    assert rows[good[0].name]["error"] == ""
    assert rows[good[0].name]["class"] in model.classes


def test_all_formats_say_the_same(tmp_path: Path, model: Model, plugins: Plugins, runner: CliRunner) -> None:
    write_images(tmp_path / "x", 5)
    (tmp_path / "x" / "bad.jpg").write_text("<html>")
    for ending in ("csv", "jsonl", "parquet"):
        call(runner, predict, plugins, tmp_path / "model", tmp_path / "x", "-o", tmp_path / f"p.{ending}", code=1)
    with open(tmp_path / "p.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    objects = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    table = pyarrow.parquet.read_table(tmp_path / "p.parquet").to_pylist()
    names = ["path", "class", "probability", "error", "p:blue", "p:green", "p:red"]
    assert list(rows[0]) == list(table[0]) == names
    for row, item, line in zip(rows, objects, table, strict=True):
        assert row["path"] == item["path"] == line["path"]
        assert row["class"] == (item["class"] or "") == (line["class"] or "")
        assert row["error"] == (item["error"] or "") == (line["error"] or "")
        if not item["error"]:
            assert float(row["p:red"]) == pytest.approx(item["probabilities"]["red"], rel=1e-5)
            assert line["p:red"] == item["probabilities"]["red"]


def test_top_names_the_likeliest_classes(tmp_path: Path, model: Model, plugins: Plugins, runner: CliRunner) -> None:
    write_images(tmp_path / "x", 2)
    words = (tmp_path / "model", tmp_path / "x", "--top", 9)
    (row, _) = csv.DictReader(io.StringIO(call(runner, predict, plugins, *words)))
    assert list(row)[4:] == ["class_2", "probability_2", "class_3", "probability_3"]
    figures = [float(row[name]) for name in ("probability", "probability_2", "probability_3")]
    assert figures == sorted(figures, reverse=True)
    call(runner, predict, plugins, *words[:2], "--top", 2, "-o", tmp_path / "p.jsonl")
    item = json.loads((tmp_path / "p.jsonl").read_text().splitlines()[0])
    assert [entry["class"] for entry in item["top"]] == [row["class"], row["class_2"]]


def test_the_class_is_validations_where_probabilities_are_equal_once_rounded() -> None:
    logits = np.array([1.0, np.nextafter(np.float32(1), np.float32(2)), 0.0], np.float32)
    probabilities = softmax(logits, 100.0)
    assert probabilities[0] == probabilities[1]
    assert PredictionColumns("abc").best(Prediction(Path("x"), probabilities, logits=logits))[0][0] == "b"
    assert PredictionColumns("abc").best(Prediction(Path("x"), probabilities))[0][0] == "a"


def test_two_forward_passes_at_a_time_give_the_bits_of_one(tmp_path: Path, model: Model) -> None:
    paths = write_images(tmp_path / "x", 40)
    found = np.stack([row.logits for _, row in outcomes(model, paths, batch_size=8) if not isinstance(row, Exception)])
    wanted = [model.forward(model.pixels(paths[start : start + 8])) for start in range(0, 40, 8)]
    assert np.array_equal(found, np.concatenate(wanted))


def written(writer: type[CsvWriter] | type[JsonWriter], names: tuple[str, ...], **options: Any) -> str:
    stream = io.BytesIO()
    columns = PredictionColumns(names)
    rows = writer(stream, columns, **options)
    for index, name in enumerate(names):
        rows.write(Prediction(Path(name), np.eye(len(names), dtype=np.float32)[index]))
    rows.write(Prediction(Path(os.fsdecode(b"\xff.png")), None, "=reason"))
    return stream.getvalue().decode()


@pytest.mark.parametrize("separator", [";", "\t", "|", ","])
@pytest.mark.parametrize("inside", ["=1+1", "=HYPERLINK(1)", "+1", "@SUM(1)", " =1", '"=1', "＝1"])
@pytest.mark.parametrize("before", ["b", 'b"', "", "b;", "b\t", "b\n", "b|", 'b";'])
def test_no_separator_makes_a_formula_of_a_name(separator: str, inside: str, before: str) -> None:
    name = f"{before}{separator}{inside}.png"
    text = written(CsvWriter, (name, "other"))
    for delimiter in ";\t|":
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=csv.QUOTE_MINIMAL):
            assert not [cell for cell in row if cell.lstrip(' "').startswith(tuple("=+@＝"))], text
    assert f"{before}{separator}"[:1] in text  # nothing is taken away


def test_hostile_names_are_text_in_csv() -> None:
    rows = list(csv.reader(io.StringIO(written(CsvWriter, HOSTILE), newline="")))
    for name, row in zip(HOSTILE, rows[1:], strict=False):
        shown = f"'{name}" if name[0] in "=+-@\t＝" else name
        assert row[:2] == [shown, shown]
        assert row[2] == "1"
        assert not any(cell.startswith(tuple("=+-@\t\r＝＋－＠")) for cell in row)
    assert rows[-1][0] == "\\udcff.png"
    assert rows[-1][3] == "'=reason"
    assert rows[0][4:] == [f"p:{name}" for name in HOSTILE]


def test_hostile_names_do_not_steer_a_terminal() -> None:
    text = written(CsvWriter, HOSTILE, to_terminal=True)
    assert len(text.splitlines()) == 1 + len(HOSTILE) + 1
    assert not any(character in text for character in "\x1b\x07\u202e\t")


def test_hostile_names_survive_json() -> None:
    text = written(JsonWriter, HOSTILE)
    assert text.isascii()
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["class"] for row in rows[:-1]] == list(HOSTILE)
    assert os.fsencode(rows[-1]["path"]) == b"\xff.png"


def test_hostile_names_survive_parquet(tmp_path: Path) -> None:
    with open_file(tmp_path / "p.parquet", PredictionColumns(HOSTILE)) as rows:
        for index, name in enumerate(HOSTILE):
            rows.write(Prediction(Path(name), np.eye(len(HOSTILE), dtype=np.float32)[index]))
        rows.write(Prediction(Path(os.fsdecode(b"\xff.png")), None, "reason"))
    table = pyarrow.parquet.read_table(tmp_path / "p.parquet").to_pylist()
    assert [row["class"] for row in table] == [*HOSTILE, None]
    assert table[-1]["path"] == "\\udcff.png"


def test_names_come_from_standard_input(tmp_path: Path, model: Model, plugins: Plugins) -> None:
    (path,) = write_images(tmp_path / "x", 1)
    odd = path.rename(path.with_name("a\nb.png"))
    names = f"{odd}\0{tmp_path / 'absent.png'}\0"
    plugin = plugins.files[0]
    words = ["predict", str(tmp_path / "model"), "-", "-0", "--plugin", plugin, "--device", "cpu", "--top", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "automl_pt", *words], input=names, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout, newline="")))
    assert rows[0]["path"] == str(odd)
    assert rows[1]["error"] == "No such file or directory"
    assert "1 images classified, 1 not readable" in done.stderr


def test_out_of_memory_takes_fewer_images_at_once_changes_nothing_and_is_told_once(
    tiny_folder: Path, tmp_path: Path, plugins: Plugins, runner: CliRunner
) -> None:
    note = "out of memory with 9 images at once; continued with 2"
    (tmp_path / "hungry").mkdir()
    few = load_tiny(tmp_path / "hungry", hungry(PLUGIN))
    folder = make_model(tmp_path / "model", plugins)
    paths = write_images(tmp_path / "x", 18)
    words = (folder, tmp_path / "x", "--batch-size", "9", "-o")
    call(runner, predict, plugins, *words, tmp_path / "plain.csv")
    options = [word for file in few.files for word in ("--plugin", file)]
    words = (*options, *words, tmp_path / "hungry.csv", "--device", "cpu")
    done = runner.invoke(predict, [*map(str, words)], standalone_mode=False)
    assert (done.exception, done.return_value) == (None, 0)
    assert done.stderr.count(f"note: {note}\n") == done.stderr.count("out of memory") == 1
    rows = [(tmp_path / f"{name}.csv").read_text().splitlines() for name in ("plain", "hungry")]
    assert [row.split(",")[:2] for row in rows[1]] == [row.split(",")[:2] for row in rows[0]]

    model, same = (load_model(folder, device="cpu", plugins=one) for one in (few, plugins))
    # batches of another size may round the last bit otherwise
    np.testing.assert_allclose(model.logits(paths), same.logits(paths), atol=1e-6)
    assert model.micro_batch.note == "out of memory with 18 images at once; continued with 2"
    assert same.micro_batch.note is None
    found = evaluate_model(folder, str(tiny_folder), few, split="val", device="cpu")
    expected = evaluate_model(folder, str(tiny_folder), plugins, split="val", device="cpu")
    assert found.scores.loss == pytest.approx(expected.scores.loss, abs=1e-6)
    assert found.scores.confusion == expected.scores.confusion
    assert found.notes == (*expected.notes, "out of memory with 12 images at once; continued with 2")


def test_out_of_memory_with_a_single_image_is_an_error(model: Model) -> None:
    class Hungry(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.empty(2**62, dtype=torch.uint8)

    with pytest.raises(RuntimeError, match="can't allocate memory"):
        replace(model, network=Hungry()).forward(np.zeros((3, 3, 8, 8), np.uint8))


def test_an_output_that_is_there_is_kept(tmp_path: Path, model: Model, plugins: Plugins, runner: CliRunner) -> None:
    write_images(tmp_path / "x", 1)
    output = tmp_path / "p.csv"
    output.write_text("mine")
    words = (tmp_path / "model", tmp_path / "x", "-o", output)
    with pytest.raises(UsageError, match="exists already"):
        call(runner, predict, plugins, *words)
    assert output.read_text() == "mine"
    call(runner, predict, plugins, *words, "--force")
    assert output.read_text().startswith("path,class,")


@pytest.mark.parametrize(
    ("name", "message"),
    [("p.txt", "use .csv"), ("p", "use .csv"), ("folder.csv", "is a folder")],
)
def test_an_output_must_say_its_format(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UsageError, match=message):
        check_output(tmp_path / name, force=True)


def test_an_output_below_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(OutputError, match="the output cannot be written"),
        open_file(tmp_path / "file/p.csv", PredictionColumns("ab")),
    ):
        pass


def test_a_failed_prediction_leaves_no_file(tmp_path: Path) -> None:
    def fail() -> None:
        with open_file(tmp_path / "p.csv", PredictionColumns("ab")) as rows:
            rows.write(Prediction(Path("x"), None, "reason"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not list(tmp_path.iterdir())


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InstallationError, match='pip install "pyarrow>='):
        check_output(tmp_path / "p.parquet", force=False)


def test_scores_come_from_every_readable_image(tiny_folder: Path, model: Model, plugins: Plugins) -> None:
    (tiny_folder / "val" / "red" / "bad.png").write_text("no image")
    data = open_labelled(str(tiny_folder), model.classes, plugins, split="val")
    scored = run_model(model, data)
    assert [name for name, _ in scored.unreadable] == ["val/red/bad.png"]
    assert score(scored.logits, scored.labels, model.classes).images == 12


def test_images_without_splits_are_scored_on_those_of_the_models_training(
    tiny_folder: Path, tmp_path: Path, plugins: Plugins, runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOML_PT_CACHE", str(tmp_path / "cache"))
    settings: dict[str, Any] = {"backbone": "tiny", "epochs": 2, "batch_size": 4, "threads": 1, "device": "cpu"}
    results = list(run.train(str(tiny_folder / "train"), output=tmp_path / "run", plugins=plugins, **settings))
    kept = next(result for result in reversed(results) if result.is_best)
    words = (tmp_path / "run", tiny_folder / "train", "--json")
    found = json.loads(call(runner, evaluate, plugins, *words))
    assert (found["split"], found["accuracy"], found["loss"]) == ("val", kept.val_accuracy, kept.val_loss)
    assert "splits are those the model was trained with: 18 train, 6 val" in found["notes"]
    assert found["notes"][-1] == "6 of 24 images are evaluated: split val"
    found = json.loads(call(runner, evaluate, plugins, *words, "--split", "all"))
    assert f"{24 - 6} of these images were trained on" in found["notes"][-1]
    found = json.loads(call(runner, evaluate, plugins, tmp_path / "run", tiny_folder, "--json"))
    assert found["split"] == "test"
    assert not any("trained" in note for note in found["notes"])


def test_a_damaged_manifest_beside_a_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(StudyError, match="manifest.json"):
        manifest_of(tmp_path / "model")
    assert manifest_of(tmp_path / "elsewhere" / "model") is None
