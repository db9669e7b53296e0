"""The search on real database servers, which the tests start; skipped where Debian's packages are not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import servers
import sqlalchemy
from optuna.distributions import FloatDistribution
from servers import PASSWORD
from toy_trial import TOY

from automl_pt.api.search import steps
from automl_pt.config import SearchConfig
from automl_pt.core.errors import StorageError
from automl_pt.study.events import Finished
from automl_pt.study.store.attributes import Outcome
from automl_pt.study.store.backends import close_storage, open_storage, server_engine
from automl_pt.study.store.coordination import SharedCoordinator
from automl_pt.study.store.trials import TrialStore

HERE = Path(__file__).parents[1]


@pytest.fixture(scope="module", params=sorted(servers.SERVERS))
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """Start a server; give its URL without a database's name."""
    with servers.SERVERS[request.param]() as url:
        yield url


@pytest.fixture
def url(server: str, request: pytest.FixtureRequest) -> str:
    """Make a database for one test."""
    name = f"db_{abs(hash(request.node.name)) % 10**9}"
    engine = servers.engine(server, "postgres" if server.startswith("postgresql") else "")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return f"{server}/{name}"


SEARCH = """
import os, sys
from pathlib import Path
from toy_trial import TOY
from automl_pt.config import SearchConfig
from automl_pt.api.search import steps
parent = os.getpid()
children = []
for _ in range(int(sys.argv[3])):
    children.append(os.fork())
    if children[-1] == 0:
        config = SearchConfig(dataset="plain", name="toy", epochs=5, trials=8, workers=0, storage=sys.argv[1])
        for event in steps(config, Path(sys.argv[2]), objective=TOY):
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
    config = SearchConfig(dataset="plain", name="toy", epochs=5, trials=8, workers=0, storage=url)
    told = list(steps(config, tmp_path / "toy", objective=TOY))
    assert isinstance(told[-1], Finished)
    trials = told[-1].result.trials
    assert [trial.number for trial in trials] == list(range(8))
    assert {trial.state for trial in trials} == {"COMPLETE", "PRUNED"}
    # every epoch was run once: both worked, neither did the other's work again
    for trial in trials:
        miniatures = sum(point < 1 for point in trial.ranks)
        assert trial.seconds == pytest.approx(0.003 * miniatures + 0.01 * trial.epochs)
    assert Path(told[-1].result.model or "", "model.json").exists()


def test_the_password_is_nowhere_in_the_study(url: str, tmp_path: Path) -> None:
    config = SearchConfig(dataset="plain", epochs=3, trials=2, workers=0, storage=url)
    told = [event.to_dict() for event in steps(config, tmp_path / "toy", objective=TOY)]
    assert PASSWORD not in repr(told)
    for path in (tmp_path / "toy").rglob("*"):
        assert path.is_dir() or PASSWORD.encode() not in path.read_bytes()


def test_a_dropped_connection_is_taken_up_again(url: str, tmp_path: Path) -> None:
    config = SearchConfig(dataset="plain", epochs=3, trials=4, workers=0, storage=url)
    last = None
    for number, event in enumerate(steps(config, tmp_path / "toy", objective=TOY)):
        last = event
        if number in (3, 6):
            servers.drop_connections(url)
    assert isinstance(last, Finished)
    assert {trial.state for trial in last.result.trials} == {"COMPLETE", "PRUNED"}


def test_coordinators_see_who_is_alive(url: str) -> None:
    engine = server_engine(url)
    first, second = SharedCoordinator(engine, "toy"), SharedCoordinator(server_engine(url), "toy")
    assert first.is_alive(second.owner)
    second.close()
    assert not first.is_alive(second.owner)
    first.close()


def test_one_that_was_taken_for_dead_writes_nothing_any_more(url: str) -> None:
    opened = [open_storage(url) for _ in range(2)]
    first, second = (TrialStore(storage, "toy", SharedCoordinator(server_engine(url), "toy"), "") for storage in opened)
    number = first.add({"lr": 0.1}, {"lr": FloatDistribution(0.01, 1.0)})
    first.report(number, 1, 0.5)
    servers.drop_connections(url)
    second.refresh()
    assert [trial.number for trial in second.orphans()] == [number]
    for write in (
        lambda: first.report(number, 2, 0.4),
        lambda: first.pause(number, Outcome("paused", 0.4, 2, 1.0)),
        lambda: first.end(number, "COMPLETE", Outcome("completed", 0.4, 2, 1.0)),
    ):
        with pytest.raises(StorageError, match="was declared dead"):
            write()
    second.own(number, second.presence.owner)
    second.report(number, 2, 0.3)
    second.refresh()
    assert second.records()[0].losses == {1: 0.5, 2: 0.3}
    for trial_store, storage in ((first, opened[0]), (second, opened[1])):
        assert isinstance(trial_store.presence, SharedCoordinator)
        trial_store.presence.close()
        close_storage(storage)


def test_a_wrong_password_is_told_without_showing_it(url: str) -> None:
    with pytest.raises(StorageError, match="check user and password") as caught:
        open_storage(url.replace(PASSWORD, "S3cret-but-wrong"))
    assert "S3cret" not in str(caught.value)
