from __future__ import annotations

import threading
import urllib.request
from pathlib import Path

import pytest
from toy_trial import TOY

from automl_pt.api.search import steps
from automl_pt.config import SearchConfig
from automl_pt.core.errors import InstallationError, OutputError, StudyError, UnknownNameError
from automl_pt.reporting.study import storage_url
from automl_pt.study.dashboard import serve

try:
    import optuna_dashboard  # noqa: F401
except ImportError:
    HAS_DASHBOARD = False
else:
    HAS_DASHBOARD = True


def study(directory: Path) -> str:
    for _ in steps(SearchConfig(dataset="plain", epochs=2, trials=2, workers=0), directory, objective=TOY):
        pass
    return storage_url(directory)


@pytest.mark.skipif(not HAS_DASHBOARD, reason="the extra `dashboard` is not installed")
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_the_dashboard_shows_the_study(tmp_path: Path) -> None:
    with serve(study(tmp_path / "toy"), 0) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/api/studies", timeout=20) as answer:
            assert b'"toy"' in answer.read()
        with (
            pytest.raises(OutputError, match="the port is in use"),
            serve(storage_url(tmp_path / "toy"), server.server_port),
        ):
            pass


@pytest.mark.skipif(HAS_DASHBOARD, reason="the extra `dashboard` is installed")
def test_without_the_extra_it_is_named() -> None:
    with pytest.raises(InstallationError, match="optuna-dashboard>=0.18"), serve("sqlite:///x.db", 0):
        pass


def test_a_study_that_was_never_started_has_no_storage(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text('dataset = "digits"\n')
    with pytest.raises(StudyError, match="a study must have been started"):
        storage_url(tmp_path)
    with pytest.raises(UnknownNameError, match="unknown study"):
        storage_url(tmp_path / "absent")
