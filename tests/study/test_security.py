"""No code, no connection and no file by order of what someone sent."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from optuna.exceptions import StorageInternalError
from test_model_directory import saved
from toy_trial import TOY

from automl_pt.api.search import steps
from automl_pt.cli import cli
from automl_pt.config import SearchConfig
from automl_pt.core.errors import AutomlError, InvalidModelDirectoryError, StorageError, StudyError
from automl_pt.core.files import to_json
from automl_pt.core.json_reader import parse_json
from automl_pt.core.safe_path import python_command, python_environment
from automl_pt.model.directory import _checksum
from automl_pt.model.load import load_model
from automl_pt.reporting.study import list_studies, read_study, storage_url
from automl_pt.study.store.backends import open_storage
from automl_pt.study.store.reading import reading

#: modules that Python, or we, import late; `runpy` and `importlib` are Python's own, imported before any code of ours
SHADOWING = ("platform", "queue", "dataclasses", "selectors", "typing", "click", "pluggy", "torch", "json", "random")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("made") / "toy"
    for _ in steps(SearchConfig(dataset="plain", epochs=2, trials=2, workers=0), directory, objective=TOY):
        pass
    return directory


@pytest.fixture
def study(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "studies" / "toy"))


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def content_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.fixture
def hostile_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "place"
    folder.mkdir()
    for name in SHADOWING:
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'a').write({name!r})\n")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    "words",
    [
        [sys.executable, "-m", "automl_pt", "--version"],
        [sys.executable, "-mautoml_pt", "plugins"],
        [str(Path(sys.executable).parent / "automl-pt"), "--version"],
    ],
    ids=lambda words: " ".join(words[1:]),
)
def test_the_command_runs_nothing_of_the_working_folder(hostile_folder: Path, tmp_path: Path, words: list[str]) -> None:
    subprocess.run(words, check=True, capture_output=True)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("entry", ["", ".", "the folder itself", "a link to it"])
def test_another_python_never_sees_the_working_folder(
    hostile_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    (tmp_path / "link").symlink_to(hostile_folder)
    path = {"the folder itself": str(hostile_folder), "a link to it": str(tmp_path / "link")}.get(entry, entry)
    monkeypatch.setattr(sys, "path", [path, *sys.path])
    code = "import sys, subprocess, platform, queue, automl_pt; subprocess.run([sys.executable, '-c', 'import queue'])"
    words = [*python_command(), "-c", code]
    subprocess.run(words, env=python_environment(), check=True)
    assert not (tmp_path / "canary").exists()


def test_a_folder_that_the_user_has_named_is_seen(hostile_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(hostile_folder))
    monkeypatch.setattr(sys, "path", [str(hostile_folder), *sys.path])
    assert str(hostile_folder) in python_environment()["PYTHONPATH"].split(os.pathsep)


def test_reading_commands_write_nothing(study: Path, runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(study.parents[1])
    (study / ".lock").unlink()
    before = content_of(study)
    for words in (["report", "toy"], ["studies"], ["studies", "--json"]):
        assert runner.invoke(cli, words, standalone_mode=False).exception is None
    assert content_of(study) == before


def test_what_a_killed_search_left_in_its_log_is_read_without_touching_it(study: Path, tmp_path: Path) -> None:
    storage = open_storage(storage_url(study))  # as one that is killed: the log is not merged
    storage.set_study_user_attr(storage.get_study_id_from_name("toy"), "late", 1)
    sent = tmp_path / "sent"
    sent.mkdir()
    for name in ("study.db", "study.db-wal"):  # and no index of the log: SQLite would make one
        shutil.copy2(study / name, sent / name)
    before = content_of(sent)
    assert "study.db-wal" in str(before)
    with reading(f"sqlite:///{sent / 'study.db'}") as found:
        assert found.get_study_user_attrs(found.get_study_id_from_name("toy"))["late"] == 1
        storage.set_study_user_attr(storage.get_study_id_from_name("toy"), "late", 2)
        shutil.copy2(study / "study.db-wal", sent / "study.db-wal")
        assert found.get_study_user_attrs(found.get_study_id_from_name("toy"))["late"] == 2  # a search goes on
        with pytest.raises(StorageInternalError):
            found.set_study_user_attr(found.get_study_id_from_name("toy"), "late", 3)
    assert set(content_of(sent)) == set(before)


ELSEWHERE = ("sqlite:///{}/elsewhere/made.db", "journal:{}/elsewhere/made.log", "postgresql://u:***@h/d", "redis://h/1")


@pytest.mark.parametrize("url", ELSEWHERE)
def test_another_storage_is_opened_only_where_the_user_names_it(study: Path, tmp_path: Path, url: str) -> None:
    change(study / "study.json", storage=url.format(tmp_path))
    for look in (read_study, storage_url):
        with pytest.raises(StudyError, match=r"(?s)opened only where --storage names it.*give the whole URL"):
            look(study)
    assert [type(found) for found in list_studies(study.parent)] == [StudyError]
    assert not (tmp_path / "elsewhere").exists()
    own = f"sqlite:///{study / 'study.db'}"
    assert len(read_study(study, storage=own).trials) == 2
    (listed,) = list_studies(study.parent, storage=own)
    assert not isinstance(listed, Exception)


@pytest.mark.parametrize("url", ["sqlite:///{}/elsewhere/made.db", "journal:{}/elsewhere/made.log"])
def test_a_storage_that_is_not_there_is_not_made_to_read_it(study: Path, tmp_path: Path, url: str) -> None:
    with pytest.raises(StorageError, match="no such file"):
        read_study(study, storage=url.format(tmp_path))
    assert not (tmp_path / "elsewhere").exists()


def test_a_server_that_does_not_answer_is_not_waited_for(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg")
    monkeypatch.setattr("automl_pt.study.store.backends.CONNECT_SECONDS", 2)  # libpq takes no less
    # it lets the client connect, and says nothing
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(StorageError):
        read_study(study, storage=f"postgresql://u@127.0.0.1:{listener.getsockname()[1]}/d")


def test_a_database_with_code_or_of_another_kind_is_refused(study: Path) -> None:
    with sqlite3.connect(study / "study.db") as database:
        database.execute(
            "CREATE VIEW trap AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x FROM c) SELECT * FROM c"
        )
    database.close()
    with pytest.raises(StorageError, match=r"(?s)views or triggers.*trap"):
        read_study(study)
    (study / "study.db").unlink()
    os.mkfifo(study / "study.db")
    with pytest.raises(StorageError, match="not a regular file"):
        read_study(study)


@pytest.mark.parametrize("value", ["[" * 99_999, '{"backbones": 3}', '{"settings": 3}', "[1]", '"x"'])
def test_values_that_no_search_has_written_are_named(study: Path, value: str) -> None:
    with sqlite3.connect(study / "study.db") as database:
        database.execute("UPDATE study_user_attributes SET value_json = ?", (value,))
    database.close()
    with pytest.raises(StudyError, match="values that no search has written"):
        read_study(study)


DEEP = "[" * 5000 + "]" * 5000


@pytest.mark.parametrize("name", ["study.json", "result.json", "run.json", "history.jsonl", "made.json"])
@pytest.mark.parametrize("text", [DEEP, "[]", '{"plugins": [1], "storage": [], "name": {}}', "NaN"])
def test_damaged_files_are_errors_and_no_tracebacks(study: Path, runner: CliRunner, name: str, text: str) -> None:
    (study / name).write_text(text)
    for words in (["report", str(study)], ["reproduce", str(study)], ["studies", "--root", str(study.parent)]):
        error = runner.invoke(cli, words, standalone_mode=False).exception
        assert error is None or isinstance(error, AutomlError), words


def test_a_plugin_that_a_study_names_wrongly_is_named_by_a_search(study: Path) -> None:
    change(study / "study.json", plugins=[3])
    with pytest.raises(StudyError, match="plugins is not a list of objects"):
        list(steps(SearchConfig(dataset="plain", epochs=2, trials=3, workers=0), study, objective=TOY))


def resigned(directory: Path, **values: Any) -> Path:
    """Change model.json as somebody who knows how it is signed."""
    record = {**parse_json((directory / "model.json").read_bytes()), **values}
    del record["checksum"]
    (directory / "model.json").write_text(to_json({**record, "checksum": _checksum(record)}))
    return directory


HUGE: dict[str, dict[str, Any]] = {
    "the largest vision transformer": {"backbone": "timm/vit_huge_patch14_224", "image_size": 224},
    "large images": {"backbone": "timm/beit_base_patch16_224", "image_size": 4096},
}


@pytest.mark.parametrize("name", HUGE)
def test_a_large_network_over_small_weights_is_refused_before_memory_is_taken(name: str, tmp_path: Path) -> None:
    directory, huge = saved(tmp_path), HUGE[name]
    record = parse_json((directory / "model.json").read_bytes())
    images = {**record["preprocessing"], "image_size": huge["image_size"]}
    resigned(directory, backbone=huge["backbone"], preprocessing=images)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidModelDirectoryError, match="the weights do not fit the network"):
        load_model(directory, device="cpu")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB, most of it imports


def test_a_plugins_network_is_counted_while_it_is_built(tmp_path: Path) -> None:
    from automl_pt.backbone import Backbone
    from automl_pt.core.errors import WeightsError
    from automl_pt.model.fit import no_larger_than

    layers: list[int] = []

    def endless(num_classes: int, pretrained: bool) -> torch.nn.Module:
        while True:
            layers.append(1)
            torch.nn.Linear(1024, 1024)

    with pytest.raises(WeightsError, match="too small for the network"), no_larger_than({"a": torch.zeros(3)}):
        Backbone("acme/endless", endless).build(2, False)
    assert len(layers) < 64
    torch.nn.Linear(4096, 4096)  # nothing is counted afterwards


def test_duplicates_among_many_classes_are_found_at_once(tmp_path: Path) -> None:
    names = [f"class {index}" for index in range(99_999)]
    resigned(saved(tmp_path), classes=[*names, names[-1]])
    with pytest.raises(InvalidModelDirectoryError, match="names 'class 99998' twice"):
        load_model(tmp_path)


@pytest.mark.parametrize("size", [1 << 40, 1 << 62])
def test_the_size_that_a_record_claims_takes_no_memory(tmp_path: Path, size: int) -> None:
    directory = saved(tmp_path)
    weights = parse_json((directory / "model.json").read_bytes())["weights"]
    resigned(directory, weights={**weights, "size": size})
    with pytest.raises(InvalidModelDirectoryError, match="bytes, not the"):
        load_model(directory)


def test_a_record_of_too_many_values_is_refused(tmp_path: Path) -> None:
    (saved(tmp_path) / "model.json").write_bytes(b"[" + b"[]," * 1_000_000 + b"[]]")
    with pytest.raises(InvalidModelDirectoryError, match="more than 1,000,000 values"):
        load_model(tmp_path)
