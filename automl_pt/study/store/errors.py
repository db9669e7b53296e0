"""Converts errors of a storage into one message, because the cause is often below two other exceptions."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy
from optuna.exceptions import StorageInternalError

from automl_pt.core.errors import AutomlError, OutputError, StorageError
from automl_pt.core.file_systems import LOCK_REMEDY

FAILURES = (StorageInternalError, sqlalchemy.exc.SQLAlchemyError, sqlite3.Error, OSError, AssertionError, RuntimeError)


@contextmanager
def translated(shown_url: str) -> Iterator[None]:
    """Convert exceptions of Optuna, SQLAlchemy and drivers into a StorageError that names `shown_url` and the remedy.

    A full disk becomes an OutputError. The whole chain of causes is examined, because Optuna hides some failures behind
    an AssertionError or UnboundLocalError.
    """
    try:
        yield
    except AutomlError:
        raise
    except (*FAILURES, NameError) as error:
        chain = list(_chain(error))
        if not any(map(_is_storages, chain)):
            raise
        raise _translate(chain, shown_url) from error


def _is_storages(error: BaseException) -> bool:
    """Return whether an error is a storage's; Optuna raises a RuntimeError for tables of another version."""
    foreign = isinstance(error, RuntimeError) and "table schema" in str(error)
    return foreign or isinstance(error, StorageInternalError | sqlalchemy.exc.SQLAlchemyError | sqlite3.Error)


def _translate(chain: list[BaseException], shown_url: str) -> AutomlError:
    text = " ".join(str(link) for link in chain).lower()
    root = _root(chain)
    if "disk is full" in text or any(isinstance(link, OSError) and link.errno == errno.ENOSPC for link in chain):
        return OutputError(
            "the storage cannot be written",
            given=f"{shown_url}: no space left on device",
            remedy="free some space and run the same command again; nothing acknowledged is lost",
        )
    remedies = {
        "not a database": "name another file, or restore this one from a copy",
        "malformed": "restore the file from a copy, or rescue it with `sqlite3 FILE .recover`",
        "unable to open database": "name a file in a folder you may write to",
        "readonly database": "name a file you may write to",
        "locking protocol": LOCK_REMEDY,
        "disk i/o error": f"check the disk; on a network file system {LOCK_REMEDY}",
        "locked": "end the program that holds the database, then run the same command again; on a network file system "
        "the program may be on another machine",
        "password": "check user and password",
        "does not exist": "create the database first, or correct its name",
        "pip install -u optuna": "a newer Optuna wrote it: install that, `pip install -U optuna`, or name another",
        "schema": "run `optuna storage upgrade --storage URL`, or use the version the study was made with",
    }
    remedy = next((remedy for sign, remedy in remedies.items() if sign in text), None)
    return StorageError(
        "the study's storage cannot be read or written",
        given=f"{shown_url}: {type(root).__name__}: {str(root).strip().splitlines()[0] if str(root).strip() else ''}",
        remedy=remedy or "check that the server runs and can be reached, then run the same command again",
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _root(chain: list[BaseException]) -> BaseException:
    """Return the driver's own error, which is the most specific."""
    for link in chain:
        original = getattr(link, "orig", None)
        if isinstance(original, BaseException):
            return original
    return chain[-1]
