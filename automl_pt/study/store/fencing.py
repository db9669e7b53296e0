"""A fence on a database server: a coordinator that others have declared dead can write nothing any more.

Each coordinator has a row of its own among the study's attributes, its token. Every transaction of its storage reads
that row, with a lock that keeps others from removing it, before it commits. Whoever finds the coordinator dead removes
the row first and takes over its trials then. So a late write, of a machine that slept or whose network came back, is
either done before the trials have another owner, or not at all.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb.models import StudyUserAttributeModel
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from automl_pt.core.errors import StorageError


class FencingToken:
    """The tokens of a study's coordinators; `owner` is this one's name."""

    def __init__(self, storage: BaseStorage, study_id: int, owner: str) -> None:
        self._study_id, self._owner = study_id, owner
        storage.set_study_user_attr(study_id, _key(owner), value=True)
        backend = getattr(storage, "_backend", storage)
        assert isinstance(backend, RDBStorage)
        self._sessions: Any = backend.scoped_session
        sqlalchemy.event.listen(self._sessions, "before_commit", self._require)

    def _require(self, session: Session) -> None:
        mine = self._row(sqlalchemy.select(StudyUserAttributeModel.study_user_attribute_id), self._owner)
        if session.execute(mine.with_for_update(read=True)).first() is None:
            raise StorageError(
                "a coordinator writes to a study while the others know that it lives",
                given=f"{self._owner} was taken for dead, and its trials have been taken over",
                remedy="run the same command again: it joins the others as a new coordinator",
            )

    def revoke(self, connection: Connection, owner: str) -> None:
        """Remove the token of `owner`, who is dead or leaves: nothing it still sends is written."""
        connection.execute(self._row(sqlalchemy.delete(StudyUserAttributeModel), owner))

    def _row(self, statement: Any, owner: str) -> Any:
        model = StudyUserAttributeModel
        return statement.where(model.study_id == self._study_id, model.key == _key(owner))

    def close(self, connection: Connection) -> None:
        """Leave the study."""
        sqlalchemy.event.remove(self._sessions, "before_commit", self._require)
        self.revoke(connection, self._owner)


def _key(owner: str) -> str:
    return f"coordinator {owner}"
