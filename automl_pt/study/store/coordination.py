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
from typing import Any

import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import Session

from automl_pt.core.errors import StorageError
from automl_pt.core.seeds import derive_seed
from automl_pt.study.store.backends import retrying


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


#: Optuna's table of what is kept with a study
ATTRIBUTES = sqlalchemy.table(
    "study_user_attributes", *map(sqlalchemy.column, ("study_user_attribute_id", "study_id", "key"))
)


class FencingToken:
    """The tokens of a study's coordinators: one that others have declared dead cannot write any more.

    `owner` is this coordinator's name. Each has a row of its own among the study's attributes, its token. Every
    transaction of its storage reads that row before it commits, with a lock that prevents its removal. A coordinator
    that finds another one dead removes the row first and then takes over its trials. So a late write, after a machine
    slept or its network returned, either precedes the takeover or is refused.
    """

    def __init__(self, storage: BaseStorage, study_id: int, owner: str) -> None:
        self._study_id, self._owner = study_id, owner
        storage.set_study_user_attr(study_id, _key(owner), value=True)
        assert isinstance(storage, RDBStorage)
        self._sessions: Any = storage.scoped_session
        sqlalchemy.event.listen(self._sessions, "before_commit", self._require)

    def _require(self, session: Session) -> None:
        mine = self._row(sqlalchemy.select(ATTRIBUTES.c.study_user_attribute_id), self._owner)
        if session.execute(mine.with_for_update(read=True)).first() is None:
            raise StorageError(
                "this coordinator was declared dead by the others",
                given=f"{self._owner}: its trials have been taken over",
                remedy="run the same command again; it joins the others as a new coordinator",
            )

    def revoke(self, connection: Connection, owner: str) -> None:
        """Remove the token of `owner`, who is dead or leaves: nothing it still sends is written."""
        connection.execute(self._row(sqlalchemy.delete(ATTRIBUTES), owner))

    def _row(self, statement: Any, owner: str) -> Any:
        return statement.where(ATTRIBUTES.c.study_id == self._study_id, ATTRIBUTES.c.key == _key(owner))

    def close(self, connection: Connection) -> None:
        """Leave the study."""
        sqlalchemy.event.remove(self._sessions, "before_commit", self._require)
        self.revoke(connection, self._owner)


def _key(owner: str) -> str:
    return f"coordinator {owner}"
