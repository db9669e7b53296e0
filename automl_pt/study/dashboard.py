"""Serves Optuna's own dashboard on a study's storage, to this machine alone: it asks nobody for a password."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from wsgiref.simple_server import WSGIServer, make_server

from automl_pt.core.errors import InstallationError, OutputError
from automl_pt.study.store.reading import reading


@contextmanager
def serve(url: str, port: int) -> Iterator[WSGIServer]:
    """Bind the dashboard of the storage at `url`, read-only, to `port` of this machine; the caller serves.

    Raises InstallationError without the extra `dashboard`, StorageError when the storage cannot be opened, OutputError
    when the port is taken.
    """
    try:
        import optuna_dashboard
    except ImportError as error:
        raise InstallationError(
            "the dashboard is a package of its own",
            given=str(error),
            remedy='`pip install "automl-pt[dashboard]"`',
        ) from error
    with reading(url) as storage:
        try:
            server = make_server("127.0.0.1", port, optuna_dashboard.wsgi(storage))
        except OSError as error:
            raise OutputError("a port is used once", given=f"{port}: {error}", remedy="name another --port") from error
        with server:
            yield server
