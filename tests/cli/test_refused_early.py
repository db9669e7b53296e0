"""What is wrong in a command's names and paths is said before PyTorch is imported, which takes seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from automl_pt.cli import cli
from automl_pt.core.errors import StudyError

PHOTOS = "Folder or file not found: {}. Did you mean photos?"
TORCH = ("torch", "torchvision", "timm", "optuna", "sqlalchemy")
#: words of a command, the exit code, and the first line that it prints of its error, or one of its mistakes
REFUSED = [
    ("search fotos/", 1, PHOTOS.format("fotos/")),
    ("search fotos", 2, PHOTOS.format("fotos")),
    ("search photos --backbone resnt18", 2, "did you mean 'resnet18'?"),
    ("search photos --backbone auto --backbone resnt18", 2, "unknown backbone 'resnt18'"),
    ("search photos --objective acuracy", 2, "did you mean 'accuracy'"),
    ("search photos --optimizer adam", 2, "did you mean 'adamw'?"),
    ("search photos --search optimizer=sdg,adamw", 2, "did you mean 'sgd'?"),
    ("search photos --sampler tp", 2, "did you mean 'tpe'?"),
    ("search photos --pruner medain", 2, "did you mean 'median'?"),
    ("search photos --engine inlin", 2, "did you mean 'inline'?"),
    ("search photos --tracker nothing", 2, "unknown tracker 'nothing'"),
    ("search photos --warm-start old", 2, "unknown study 'old'"),
    ("search photos --weights modell.safetensors", 1, "not found: modell.safetensors. Did you mean model.safetensors?"),
    ("search photos --config absent.toml", 2, "Folder or file not found: absent.toml"),
    ("search photos --config settings.toml", 2, "trails: unknown setting; did you mean 'trials'?"),
    ("search photos --pretrained --weights model.safetensors", 2, "give pretrained or weights, not both"),
    ("train fotos/", 1, PHOTOS.format("fotos/")),
    ("train photos --backbone resnt18", 2, "did you mean 'resnet18'?"),
    ("evaluate studies/phots/model photos", 1, "not found: studies/phots/model. Did you mean studies/photos/model?"),
    ("predict phots photos", 1, "Folder or file not found: phots. Did you mean photos?"),
    ("predict studies/phots photos", 1, "Did you mean studies/photos?"),
    ("report phots", 2, "unknown study 'phots'"),
    ("report phots --html page.html", 2, "unknown study 'phots'"),
    ("serve phots", 1, "Folder or file not found: phots. Did you mean photos?"),
    ("export phots --format onnx", 1, "Folder or file not found: phots. Did you mean photos?"),
    ("reproduce runs/photo-resnet18", 1, "Did you mean runs/photos-resnet18?"),
    ("check fotos", 2, PHOTOS.format("fotos")),
    ("dashboard phots", 2, "unknown study 'phots'"),
    ("fetch resnt18", 2, "did you mean 'resnet18'?"),
]
SCRIPT = """
import contextlib, io, json, sys
from automl_pt.cli import main
found = []
for words in json.load(sys.stdin):
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            main(words.split())
    except SystemExit as end:
        found.append((end.code, said.getvalue(), [name for name in sys.argv[1:] if name in sys.modules]))
with open("found.json", "w") as stream:
    json.dump(found, stream)
"""


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, list[str]]]:
    """Run all commands in one new process: exit code, error and the libraries that are imported, by the command."""
    place = tmp_path_factory.mktemp("place")
    for folder in ("photos/cat", "photos/dog", "studies/photos/model", "runs/photos-resnet18"):
        (place / folder).mkdir(parents=True)
    (place / "model.safetensors").write_bytes(b"")
    (place / "settings.toml").write_text("trails = 3\n")
    commands = [words for words, *_ in REFUSED]
    subprocess.run(
        [sys.executable, "-c", SCRIPT, *TORCH],
        input=json.dumps(commands),
        cwd=place,
        env={**os.environ, "AUTOML_PT_NO_PLUGINS": "1", "AUTOML_PT_CACHE": str(place / "cache")},  # no names are cached
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(commands, json.loads((place / "found.json").read_text()), strict=True))


@pytest.mark.parametrize(("words", "code", "said"), REFUSED)
def test_a_wrong_name_is_refused_before_anything_is_imported(
    refusals: dict[str, tuple[int, str, list[str]]], words: str, code: int, said: str
) -> None:
    found = refusals[words]
    assert said in found[1]
    assert "next:" in found[1]
    assert found[0] == code
    assert found[2] == []


def test_the_plugin_of_a_study_is_named_not_its_backbone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: CliRunner
) -> None:
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "studies" / "photos").mkdir(parents=True)
    plugin = {"name": "mine", "distribution": "automl-pt-mine", "version": "1", "origin": "automl-pt-mine"}
    record = {"name": "photos", "storage": "study.db", "plugins": [plugin], "asked": {"backbones": ["mine"]}}
    (tmp_path / "studies" / "photos" / "study.json").write_text(json.dumps(record))
    monkeypatch.chdir(tmp_path)
    done = runner.invoke(cli, ["search", "photos", "--backbone", "mine"])
    assert isinstance(done.exception, StudyError)
    assert "a plugin of this study is not loaded" in str(done.exception)
