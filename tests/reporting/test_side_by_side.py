"""`automl-pt studies compare`: two studies side by side, and their models on the same images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import write_folder
from test_after import plugins_in, search

from automl_pt.cli.studies import command
from automl_pt.core.errors import StudyError, UnknownNameError
from automl_pt.reporting.compare_studies import compare_studies


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with three studies: `a` and `b` on the same images, `c` on others; and the images of each."""
    root = tmp_path_factory.mktemp("compare")
    same = write_folder(root / "images", {"train": 8, "val": 4, "test": 4})
    other = write_folder(root / "others", {"train": 6, "val": 4})
    (root / "studies").mkdir()
    search(same, root / "studies" / "a", trials=2, epochs=3)
    search(same, root / "studies" / "b", trials=1, epochs=1, seed=7)
    search(other, root / "studies" / "c", trials=1, epochs=1)
    return root


def test_the_same_images_are_compared_image_by_image(studies: Path) -> None:
    plugins = plugins_in(studies / "studies")
    found = compare_studies(studies / "studies" / "a", studies / "studies" / "b", plugins=plugins)
    assert found.same_data
    assert found.same_test
    assert found.notes == ()
    assert found.other_settings == {"seed": (1, 7)}
    assert (found.first.space["trials"], found.second.space["trials"]) == (2, 1)
    assert (found.first.full_runs, found.second.full_runs) == (2.0, 1.0)
    assert found.first.images == {"train": 24, "val": 12, "test": 12}
    assert found.paired is not None
    assert found.paired["images"] == 12
    assert found.paired["first_val_loss"] == pytest.approx(found.first.val_loss, rel=1e-5)
    assert found.paired["second_val_loss"] == pytest.approx(found.second.val_loss, rel=1e-5)
    assert found.paired["first_val_accuracy"] == found.first.val_accuracy
    gain = found.paired["second_val_loss"] - found.paired["first_val_loss"]
    assert found.paired["loss_gain"] == pytest.approx(gain)


def test_other_images_are_not_comparable_and_the_exit_code_says_so(studies: Path, runner: CliRunner) -> None:
    result = runner.invoke(command, ["compare", str(studies / "studies" / "a"), str(studies / "studies" / "c")])
    assert "not comparable: their training or validation images, or their splits, are others" in result.output
    assert "their test splits hold other images" in result.output
    assert "18 train, 12 val" in result.output
    assert "McNemar" not in result.output


def test_the_table_and_the_json_say_the_same(studies: Path, runner: CliRunner) -> None:
    pair = [str(studies / "studies" / name) for name in ("a", "b")]
    unnamed = runner.invoke(command, ["compare", *pair]).output
    assert "on the same 12 validation images" not in unnamed  # a plugin that the studies name is not loaded
    assert "--plugin" in unnamed
    pair += ["--plugin", str(studies / "studies" / "tiny_plugin.py")]
    table = runner.invoke(command, ["compare", *pair]).output
    values = json.loads(runner.invoke(command, ["compare", *pair, "--json"], catch_exceptions=False).output)
    assert values["same_data"] is True
    assert f"{values['first']['val_loss']:.4f}" in table
    assert f"{100 * values['second']['test']['accuracy']:.1f} %" in table
    assert "on the same 12 validation images the loss of a is" in table
    assert "both models were chosen by these images" in table


def test_images_that_have_gone_leave_the_rest_of_the_comparison(studies: Path, tmp_path: Path) -> None:
    moved = studies / "images-elsewhere"
    (studies / "images").rename(moved)
    try:
        found = compare_studies(studies / "studies" / "a", studies / "studies" / "b")
    finally:
        moved.rename(studies / "images")
    assert found.same_data
    assert found.paired is None
    assert found.notes[0].startswith("their models were not compared image by image: ")


def test_a_study_that_is_none_and_one_that_was_not_searched(studies: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"(?s)unknown study.*'nowhere'.*`automl-pt studies` lists"):
        compare_studies(studies / "studies" / "a", "nowhere")
    copy = Path(shutil.copytree(studies / "studies" / "a", tmp_path / "old"))
    about = json.loads((copy / "study.json").read_text())
    (copy / "study.json").write_text(json.dumps({key: about[key] for key in ("name", "storage")}))
    with pytest.raises(StudyError, match=r"(?s)no record of its settings.*search it with this version"):
        compare_studies(copy, copy)
