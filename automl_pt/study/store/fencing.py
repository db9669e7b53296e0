"""Fencing tokens on a database server: a coordinator that others have declared dead cannot write any more.

Each coordinator has a row of its own among the study's attributes, its token. Every transaction of its storage reads
that row before it commits, with a lock that prevents its removal. A coordinator that finds another one dead first
removes the row and then takes over its trials. So a late write, after a machine slept or its network returned, either
precedes the takeover, or is refused.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from automl_pt.core.errors import StorageError

#: Optuna's table of what is kept with a study
ATTRIBUTES = sqlalchemy.table(
    "study_user_attributes", *map(sqlalchemy.column, ("study_user_attribute_id", "study_id", "key"))
)


class FencingToken:
    """The tokens of a study's coordinators; `owner` is this one's name."""

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
