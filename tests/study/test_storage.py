from __future__ import annotations

import itertools
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.distributions import FloatDistribution
from optuna.exceptions import StorageInternalError
from optuna.study import StudyDirection

from automl_pt.core.errors import StorageError
from automl_pt.study.store.attributes import Outcome
from automl_pt.study.store.backends import open_storage, retrying, shown
from automl_pt.study.store.coordination import SingleCoordinator
from automl_pt.study.store.journal import RepairingJournal
from automl_pt.study.store.trials import TrialStore

MINIMIZE = [StudyDirection.MINIMIZE]


def close(storage: Any) -> None:
    storage.engine.dispose()


def test_sqlite_keeps_what_it_acknowledged_on_every_connection(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/study.db")
    engine = storage.engine  # type: ignore[attr-defined]
    with engine.connect() as first, engine.connect() as second:
        for connection in (first, second):
            assert connection.execute(sqlalchemy.text("PRAGMA journal_mode")).scalar() == "wal"
            assert connection.execute(sqlalchemy.text("PRAGMA synchronous")).scalar() == 2
    close(storage)


STARTER = """
import os, sys
from automl_pt.study.store.backends import open_storage
from optuna.study import StudyDirection
from optuna.exceptions import DuplicatedStudyError

def start():
    storage = open_storage(sys.argv[1])
    try:
        storage.create_new_study([StudyDirection.MINIMIZE], "one")
    except DuplicatedStudyError:
        pass
    os._exit(0)

children = [os.fork() for _ in range(5) if os.getpid() == int(os.environ.setdefault("PARENT", str(os.getpid())))]
if 0 in children:
    start()
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""


@pytest.mark.parametrize("kind", ["sqlite:///{}/study.db", "journal:{}/study.log"])
def test_processes_that_start_together_all_start(tmp_path: Path, kind: str) -> None:
    url = kind.format(tmp_path)
    assert subprocess.run([sys.executable, "-c", STARTER, url], check=False).returncode == 0
    storage = open_storage(url)
    assert [study.study_name for study in storage.get_all_studies()] == ["one"]
    if "sqlite" in kind:
        close(storage)


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "accounts.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE accounts (name TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StorageError, match="holds the tables accounts"):
        open_storage(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("not a database, but long enough to have a header" * 10)
    with pytest.raises(StorageError, match=r"cannot be read or written(.|\n)*study.db(.|\n)*restore"):
        open_storage(f"sqlite:///{tmp_path}/study.db")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://localhost", "could run code"),
        ("journal+redis://localhost", "could run code"),
        ("grpc://localhost:13000", "could run code"),
        ("oracle://host/db", "SQLite, a journal file, PostgreSQL or MySQL"),
        ("nonsense", "not a valid URL"),
        ("sqlite://", "an in-memory database keeps no study"),
    ],
)
def test_storages_that_cannot_be_used_are_refused(url: str, message: str) -> None:
    with pytest.raises(StorageError, match=message):
        open_storage(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:S3cret!@host/db",
        "mysql://ann:S3cret%21@host/db?ssl_password=S3cret!",
        "postgresql://host/db?password=S3cret!",
        "postgresql://ann:S3cret!@@@host:port:x/db",
        "postgresql://ann:p@S3cret!@host/db",
        "postgresql://ann:p@x/S3cret!@host/db",
        "S3cret!",
    ],
)
def test_a_password_is_never_shown(url: str) -> None:
    assert "S3cret" not in shown(url)


@pytest.mark.parametrize(
    "url", ["postgresql://ann:S3cret!@@@host:port:x/db", "postgresql://ann:p@S3cret!@host/db", "S3cret!"]
)
def test_nor_in_an_error(url: str) -> None:
    with pytest.raises(StorageError) as caught:
        open_storage(url)
    assert "S3cret" not in str(caught.value)
    assert "in a password %40 for @" in caught.value.remedy


def test_retrying_goes_on_until_the_storage_answers() -> None:
    pauses: list[float] = []
    answers = iter([sqlalchemy.exc.OperationalError("x", {}, Exception("locked"))] * 3)

    def action() -> str:
        for error in answers:
            raise error
        return "done"

    assert retrying(action, pauses.append) == "done"
    assert len(pauses) == 3
    assert pauses[0] < pauses[2]


class Away(optuna.storages.InMemoryStorage):
    """A storage that is away at the first call of a method, or whose answer to it is lost."""

    def __init__(self, method: str, *, written: bool) -> None:
        super().__init__()
        inner, calls = getattr(self, method), itertools.count()

        def call(*given: Any, **options: Any) -> Any:
            first = next(calls) == 0
            if first and not written:
                raise StorageInternalError("the server is away")
            answer = inner(*given, **options)
            if first:
                raise StorageInternalError("the answer is lost")
            return answer

        setattr(self, method, call)


METHODS = ["create_new_trial", "get_trial", "set_trial_user_attr", "set_trial_intermediate_value"]
METHODS += ["set_trial_state_values", "set_study_user_attr", "get_study_user_attrs", "get_all_trials"]


@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_a_storage_that_is_away_for_a_moment_costs_no_trial_and_doubles_none(method: str, written: bool) -> None:
    storage = Away(method, written=written)
    trial_store = TrialStore(storage, "one", SingleCoordinator(), "")
    trial_store.set_about({"lr": [0.1, 1.0]})
    for loss in (0.5, 0.4):
        number = trial_store.add({"lr": loss}, {"lr": FloatDistribution(0.1, 1.0)})
        trial_store.report(number, 1, loss)
        trial_store.end(number, "COMPLETE", Outcome("completed", loss, 1, 1.0))
    trial_store.set_best([1, 1])
    assert (trial_store.about(), trial_store.best()) == ({"lr": [0.1, 1.0]}, [1, 1])
    trial_store.refresh()
    assert [(record.number, record.value, record.state) for record in trial_store.records()] == [
        (0, 0.5, "COMPLETE"),
        (1, 0.4, "COMPLETE"),
    ]


def journal_with(tmp_path: Path, tail: bytes) -> Path:
    path = tmp_path / "study.log"
    storage = optuna.storages.JournalStorage(RepairingJournal(path))
    study_id = storage.create_new_study(MINIMIZE, "one")
    storage.set_study_user_attr(study_id, "kept", 1)
    with open(path, "ab") as stream:
        stream.write(tail)
    return path


@pytest.mark.parametrize("tail", [b'{"op_code": 0, "wor', b"\0\0\0\0", b"x" * 200_000])
def test_a_torn_last_line_of_a_journal_costs_nothing_acknowledged(tmp_path: Path, tail: bytes) -> None:
    path = journal_with(tmp_path, tail)
    storage = open_storage(f"journal:{path}")
    study_id = storage.get_study_id_from_name("one")
    storage.set_study_user_attr(study_id, "later", 2)
    again = open_storage(f"journal:{path}")
    assert again.get_study_user_attrs(study_id) == {"kept": 1, "later": 2}
    assert path.with_name("study.log.torn").read_bytes() == tail


def test_a_damaged_line_in_the_middle_of_a_journal_is_refused(tmp_path: Path) -> None:
    path = journal_with(tmp_path, b"rubbish\n")
    with open(path, "ab") as stream:
        stream.write(b'{"op_code": 2}\n')
    with pytest.raises(StorageError, match="the journal cannot be read"):
        open_storage(f"journal:{path}")


def test_a_relative_journal_path_means_the_same_file_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage = open_storage("journal:studies/one.log")
    os.chdir("/")
    storage.create_new_study(MINIMIZE, "one")
    assert (tmp_path / "studies" / "one.log").stat().st_size > 0


def test_a_damaged_page_of_a_database_is_named_with_what_rescues_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    storage = open_storage(url)
    study_id = storage.create_new_study(MINIMIZE, "one")
    for key in range(200):
        storage.set_study_user_attr(study_id, f"key {key}", "x" * 500)
    close(storage)
    content = bytearray((tmp_path / "study.db").read_bytes())
    for page in range(1, len(content) // 4096):
        content[4096 * page : 4096 * page + 200] = b"\xa5" * 200
    (tmp_path / "study.db").write_bytes(content)
    with pytest.raises(StorageError, match=r"study.db(.|\n)*restore (the file|this one) from a copy"):
        open_storage(url)


@pytest.mark.parametrize(
    ("version", "said"),
    [("v99.0.0.a", r"newer Optuna wrote it: install that, `pip install -U optuna`"), ("v2.6.0.a", "upgrade")],
)
def test_a_database_of_another_version_names_the_command(tmp_path: Path, version: str, said: str) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    close(open_storage(url))
    with sqlite3.connect(tmp_path / "study.db") as connection:
        connection.execute("UPDATE version_info SET schema_version = 99")
        connection.execute("UPDATE alembic_version SET version_num = ?", (version,))
    connection.close()
    with pytest.raises(StorageError, match=said):
        open_storage(url)


@pytest.mark.parametrize("content", ["a folder", b"", b"SQLite format 3\0", b"\0" * 4096])
def test_what_is_no_database_is_refused_or_begun(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "study.db"
    if isinstance(content, str):
        path.mkdir()
    else:
        path.write_bytes(content)
    if content == b"":
        close(open_storage(f"sqlite:///{path}"))  # an empty file is an empty database to SQLite
        return
    with pytest.raises(StorageError, match=r"study\.db"):
        open_storage(f"sqlite:///{path}")
