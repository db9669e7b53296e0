"""How the coordinators of one study know of each other.

With a file storage there is one: it holds the lock of the study's folder. On a server each coordinator holds a lock of
the server's own under its name; the server drops it when the connection ends, however the coordinator died.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

import sqlalchemy
from sqlalchemy.engine import Connection, Engine

from automl_pt.seeds import derive_seed
from automl_pt.study.storage import retrying


class Alone:
    """The only coordinator: what another one left is an orphan."""

    owner = "coordinator"
    has_company = False

    def turn(self) -> nullcontext[None]:
        """Nobody else hands out trials."""
        return nullcontext()

    def is_alive(self, owner: str) -> bool:
        """Say that nobody else is at work."""
        return False


class Among:
    """One of several coordinators on a database server, PostgreSQL or MySQL."""

    has_company = True

    def __init__(self, engine: Engine, study: str) -> None:
        self.owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._engine, self._study = engine, study
        self._postgresql = engine.dialect.name == "postgresql"
        self._connection = self._announce()

    def _announce(self) -> Connection:
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._call(connection, "pg_advisory_lock" if self._postgresql else "GET_LOCK", self.owner)
        return connection

    def keep_up(self) -> None:
        """Announce ourselves again where the server has dropped the connection."""
        try:
            self._connection.execute(sqlalchemy.text("SELECT 1"))
        except sqlalchemy.exc.DBAPIError:
            self._connection.invalidate()
            self._connection.close()
            self._connection = retrying(self._announce)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the study's lock, which others wait for."""
        self.keep_up()
        take, drop = ("pg_advisory_lock", "pg_advisory_unlock") if self._postgresql else ("GET_LOCK", "RELEASE_LOCK")
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            self._call(connection, take, f"study {self._study}")
            try:
                yield
            finally:
                with suppress(sqlalchemy.exc.DBAPIError):  # the connection is gone, and the lock with it
                    self._call(connection, drop, f"study {self._study}")

    def is_alive(self, owner: str) -> bool:
        """Say whether the server still holds the lock of `owner`."""
        if owner == self.owner:
            return True
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if not self._postgresql:
                return not self._call(connection, "IS_FREE_LOCK", owner)
            free = bool(self._call(connection, "pg_try_advisory_lock", owner))
            if free:
                self._call(connection, "pg_advisory_unlock", owner)
            return not free

    def _call(self, connection: Connection, function: str, name: str) -> object:
        key = derive_seed("automl-pt", name)
        if self._postgresql:
            statement = sqlalchemy.text(f"SELECT {function}(:key)").bindparams(key=key)
        elif function == "GET_LOCK":
            statement = sqlalchemy.text("SELECT GET_LOCK(:key, 600)").bindparams(key=str(key))
        else:
            statement = sqlalchemy.text(f"SELECT {function}(:key)").bindparams(key=str(key))
        return connection.execute(statement).scalar()

    def close(self) -> None:
        """Leave."""
        self._connection.close()
        self._engine.dispose()
