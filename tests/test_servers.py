"""The search on a real PostgreSQL server, which the tests start; skipped where Debian's package is not installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy
from toy_trial import TOY

from automl_pt.config import SearchConfig
from automl_pt.errors import StorageError
from automl_pt.study.events import Finished
from automl_pt.study.presence import Among
from automl_pt.study.search import steps
from automl_pt.study.storage import open_storage, server_engine

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
PASSWORD = "canary-S3cret"
HERE = Path(__file__).parent

pytest.importorskip("psycopg", reason="the extra `postgresql` is not installed")
if not BINARIES:
    pytest.skip("no PostgreSQL server is installed (Debian: apt-get install postgresql)", allow_module_level=True)


def run_as_server_user(command: list[str]) -> None:
    """Run a server's program; it refuses to work for root, and has a user of its own then."""
    user = "postgres" if os.getuid() == 0 else None
    subprocess.run(command, check=True, user=user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Start a server with a fresh cluster; return a URL without a database's name."""
    folder = Path(tempfile.mkdtemp(prefix="automl-pt-postgresql-"))
    (folder / "password").write_text(PASSWORD)
    if os.getuid() == 0:
        shutil.chown(folder, "postgres")
        shutil.chown(folder / "password", "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data, control = folder / "data", str(BINARIES[-1].with_name("pg_ctl"))
    secret = ["-A", "scram-sha-256", "-U", "ann", f"--pwfile={folder}/password", "--no-sync"]
    run_as_server_user([str(BINARIES[-1]), "-D", str(data), *secret])
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    run_as_server_user([control, "-D", str(data), "-o", options, "-w", "start"])
    try:
        yield f"postgresql://ann:{PASSWORD}@127.0.0.1:{port}"
    finally:
        run_as_server_user([control, "-D", str(data), "-m", "immediate", "stop"])
        shutil.rmtree(folder)


@pytest.fixture
def url(server: str, request: pytest.FixtureRequest) -> str:
    """Make a database for one test."""
    name = f"db_{abs(hash(request.node.name)) % 10**9}"
    engine = sqlalchemy.create_engine(server.replace("postgresql:", "postgresql+psycopg:") + "/postgres")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return f"{server}/{name}"


SEARCH = """
import os, sys
from pathlib import Path
from toy_trial import TOY
from automl_pt.config import SearchConfig
from automl_pt.study.search import steps
parent = os.getpid()
children = []
for _ in range(int(sys.argv[3])):
    children.append(os.fork())
    if children[-1] == 0:
        config = SearchConfig(dataset="plain", name="toy", epochs=9, trials=12, workers=0, storage=sys.argv[1])
        for event in steps(config, Path(sys.argv[2]), subject=TOY):
            pass
        os._exit(0)
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""


def search_together(url: str, directory: Path, coordinators: int) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]), "TOY_SECONDS": "0.02"}
    command = [sys.executable, "-c", SEARCH, url, str(directory), str(coordinators)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_two_coordinators_share_one_study(url: str, tmp_path: Path) -> None:
    search_together(url, tmp_path / "toy", 2)
    config = SearchConfig(dataset="plain", name="toy", epochs=9, trials=12, workers=0, storage=url)
    told = list(steps(config, tmp_path / "toy", subject=TOY))
    assert isinstance(told[-1], Finished)
    trials = told[-1].result.trials
    assert [trial.number for trial in trials] == list(range(12))
    assert {trial.state for trial in trials} == {"COMPLETE", "PRUNED"}
    # every epoch was run once: both worked, neither did the other's work again
    for trial in trials:
        assert trial.seconds == pytest.approx(0.01 * trial.epochs or 0.003)  # of those dropped within the first epoch
    assert Path(told[-1].result.model or "", "model.json").exists()


def test_the_password_is_nowhere_in_the_study(url: str, tmp_path: Path) -> None:
    config = SearchConfig(dataset="plain", epochs=3, trials=2, workers=0, storage=url)
    told = [event.to_dict() for event in steps(config, tmp_path / "toy", subject=TOY)]
    assert PASSWORD not in repr(told)
    for path in (tmp_path / "toy").rglob("*"):
        assert path.is_dir() or PASSWORD.encode() not in path.read_bytes()


def test_a_dropped_connection_is_taken_up_again(url: str, tmp_path: Path) -> None:
    config = SearchConfig(dataset="plain", epochs=3, trials=4, workers=0, storage=url)
    engine = server_engine(url)
    last = None
    for number, event in enumerate(steps(config, tmp_path / "toy", subject=TOY)):
        last = event
        if number in (3, 6):
            with engine.connect() as connection:
                end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                connection.execute(sqlalchemy.text(f"{end} AND backend_type = 'client backend'"))
    engine.dispose()
    assert isinstance(last, Finished)
    assert {trial.state for trial in last.result.trials} == {"COMPLETE", "PRUNED"}


def test_coordinators_see_who_is_alive(url: str) -> None:
    engine = server_engine(url)
    first, second = Among(engine, "toy"), Among(server_engine(url), "toy")
    assert first.is_alive(second.owner)
    second.close()
    assert not first.is_alive(second.owner)
    first.close()


def test_a_wrong_password_is_told_without_showing_it(url: str) -> None:
    with pytest.raises(StorageError, match="check user and password") as caught:
        open_storage(url.replace(PASSWORD, "S3cret-but-wrong"))
    assert "S3cret" not in str(caught.value)
