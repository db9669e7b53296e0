"""Coordinates the coordinators of one study.

A file storage has one coordinator, which holds the lock of the study's folder. On a server each coordinator holds a
server lock under its name, which the server releases when the connection ends, however the coordinator died. Another
that finds this lock free declares its owner dead, revokes its token (`fencing`), and takes over its trials.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

import sqlalchemy
from optuna.storages import BaseStorage
from sqlalchemy.engine import Connection, Engine

from automl_pt.core.seeds import derive_seed
from automl_pt.study.store.backends import retrying
from automl_pt.study.store.fencing import FencingToken


class SingleCoordinator:
    """The only coordinator: all unfinished trials of others are orphans."""

    owner = "coordinator"
    has_company = False

    def join(self, storage: BaseStorage, study_id: int) -> None:
        """Do nothing, because there is no other coordinator to revoke."""

    def allocation_lock(self) -> nullcontext[None]:
        """Return an empty context, because there is no other coordinator."""
        return nullcontext()

    def is_alive(self, owner: str) -> bool:
        """Return False, because no other coordinator runs."""
        return False


class SharedCoordinator:
    """One of several coordinators on a database server, PostgreSQL or MySQL."""

    has_company = True

    def __init__(self, engine: Engine, study: str) -> None:
        self.owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._engine, self._study = engine, study
        self._postgresql = engine.dialect.name == "postgresql"
        self._connection = retrying(self._announce)
        self._fencing_token: FencingToken | None = None

    def join(self, storage: BaseStorage, study_id: int) -> None:
        """Set up the fencing tokens of this coordinator and the check of others."""
        self._fencing_token = FencingToken(storage, study_id, self.owner)

    def _announce(self) -> Connection:
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._take(connection, self.owner)
        return connection

    def keep_up(self) -> None:
        """Announce this coordinator again if the server has dropped the connection."""
        try:
            self._connection.execute(sqlalchemy.text("SELECT 1"))
        except sqlalchemy.exc.DBAPIError:
            self._connection.invalidate()
            self._connection.close()
            self._connection = retrying(self._announce)

    def _connect(self) -> Connection:
        return retrying(self._engine.connect).execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def allocation_lock(self) -> Iterator[None]:
        """Hold the study's lock, for which others wait."""
        self.keep_up()
        with self._connect() as connection:
            self._take(connection, f"study {self._study}")
            try:
                yield
            finally:
                with suppress(sqlalchemy.exc.DBAPIError):  # the connection is closed, which released the lock
                    self._drop(connection, f"study {self._study}")

    def is_alive(self, owner: str) -> bool:
        """Return whether the server still holds the lock of `owner`; if not, revoke the owner's token."""
        if owner == self.owner:
            return True
        take = "pg_try_advisory_lock" if self._postgresql else "TRY_LOCK"
        with self._connect() as connection:
            if not self._call(connection, take, owner):
                return True
            try:
                if self._fencing_token is not None:
                    self._fencing_token.revoke(connection, owner)
            finally:
                self._drop(connection, owner)
            return False

    def _take(self, connection: Connection, name: str) -> None:
        """Wait for a lock; MySQL returns 0 after its timeout, and is asked again."""
        while self._call(connection, "pg_advisory_lock" if self._postgresql else "GET_LOCK", name) == 0:
            continue

    def _drop(self, connection: Connection, name: str) -> None:
        self._call(connection, "pg_advisory_unlock" if self._postgresql else "RELEASE_LOCK", name)

    def _call(self, connection: Connection, function: str, name: str) -> object:
        key = derive_seed("automl-pt", name)
        if self._postgresql:
            statement = sqlalchemy.text(f"SELECT {function}(:key)").bindparams(key=key)
        elif function.endswith("_LOCK") and function != "RELEASE_LOCK":
            seconds = 600 if function == "GET_LOCK" else 0
            statement = sqlalchemy.text(f"SELECT GET_LOCK(:key, {seconds})").bindparams(key=str(key))
        else:
            statement = sqlalchemy.text(f"SELECT {function}(:key)").bindparams(key=str(key))
        return connection.execute(statement).scalar()

    def close(self) -> None:
        """Leave, and release the lock explicitly, because the server may notice a closed connection late."""
        with suppress(sqlalchemy.exc.DBAPIError):  # the connection is closed, which released the lock
            if self._fencing_token is not None:
                self._fencing_token.close(self._connection)
            self._drop(self._connection, self.owner)
        self._connection.close()
        self._engine.dispose()
