"""Serves Optuna's dashboard on a study's storage, to this machine only, because it asks for no password."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from wsgiref.simple_server import WSGIServer, make_server

from automl_pt.core.errors import InstallationError, OutputError
from automl_pt.core.installation import how_to_install
from automl_pt.study.store.reading import reading


@contextmanager
def serve(url: str, port: int) -> Iterator[WSGIServer]:
    """Bind the dashboard of the storage at `url`, read-only, to `port` on this machine; the caller serves.

    Raises InstallationError without the extra `dashboard`, StorageError if the storage cannot be opened, OutputError
    if the port is in use.
    """
    try:
        import optuna_dashboard
    except ImportError as error:
        raise InstallationError(
            "the dashboard is not installed",
            given=str(error),
            remedy=how_to_install("dashboard"),
        ) from error
    with reading(url) as storage:
        try:
            server = make_server("127.0.0.1", port, optuna_dashboard.wsgi(storage))
        except OSError as error:
            raise OutputError("the port is in use", given=f"{port}: {error}", remedy="choose another --port") from error
        with server:
            yield server
