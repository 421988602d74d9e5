"""The way to PostgreSQL: connections, their session settings, and the one table of its errors."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow

from engine.settings import without_password


class AdvisoryLock(IntEnum):
    """Keys of the advisory locks, in one place so that no two are alike."""

    MIGRATION = 0x46430001
    TRUST = 0x46430002
    DELIVERY = 0x46430003


class DatabaseError(Exception):
    """PostgreSQL could not do what it was asked."""

    def __init__(self, reason: str = "") -> None:
        message = (self.__doc__ or "").strip()
        super().__init__(f"{message} {reason}".strip() if reason else message)
        self.reason = reason


class DatabaseUnavailable(DatabaseError):
    """PostgreSQL cannot be reached, or it ended the session; what was not committed is undone."""


class RowsRefused(DatabaseError):
    """A constraint or a type says that these rows cannot be."""


class SchemaMismatch(DatabaseError):
    """The database's schema is not the one that this program works with."""


# Driver errors by their nearest class, most special first.
_TRANSLATION: tuple[tuple[type[psycopg.Error], type[DatabaseError]], ...] = (
    (psycopg.IntegrityError, RowsRefused),
    (psycopg.DataError, RowsRefused),
    (psycopg.errors.UndefinedTable, SchemaMismatch),
    (psycopg.errors.UndefinedColumn, SchemaMismatch),
    (psycopg.errors.QueryCanceled, DatabaseUnavailable),
    (psycopg.errors.IdleInTransactionSessionTimeout, DatabaseUnavailable),
    (psycopg.errors.SerializationFailure, DatabaseUnavailable),
    (psycopg.errors.DeadlockDetected, DatabaseUnavailable),
    (psycopg.InterfaceError, DatabaseUnavailable),
    (psycopg.OperationalError, DatabaseUnavailable),
)


@contextmanager
def translated() -> Iterator[None]:
    """Within it, errors of psycopg and of SQLAlchemy over it come out as `DatabaseError`."""
    try:
        yield
    except psycopg.Error as error:
        raise _translate(error) from error
    except Exception as error:
        # SQLAlchemy, which not every process loads, keeps the driver's error in its own.
        original = getattr(error, "orig", None)
        if isinstance(original, psycopg.Error):
            raise _translate(original) from error
        raise


_IS_IT_RUNNING = re.compile(r"\s+Is the server running [^\n]*")
"""What libpq asks who has read that the connection was refused."""
_REMEDY = "Check that PostgreSQL runs, and that FIRSTCOME_DATABASE_URL names it."


def _translate(error: psycopg.Error) -> DatabaseError:
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        # Without a word of the server's own: it was not reached, or it went away.
        told = _IS_IT_RUNNING.sub("", str(error)).strip().rstrip(".")
        return DatabaseUnavailable(f"{told}. {_REMEDY}")
    for driver, ours in _TRANSLATION:
        if isinstance(error, driver):
            return ours(str(error).strip())
    return DatabaseError(str(error).strip())


def libpq_url(database_url: str) -> str:
    """The URL as libpq reads it: ``postgresql://``, ``postgres://`` or ``postgresql+psycopg://``, a socket folder as
    ``postgresql://user@/name?host=/folder``. Raises ``ValueError`` for what libpq does not read, without quoting it:
    libpq's own words do, and what it cannot read is a password more often than not."""
    scheme, colon, rest = database_url.partition("://")
    if not colon or scheme not in {"postgresql", "postgres", "postgresql+psycopg"}:
        raise ValueError(f"a database URL begins with postgresql://, not {without_password(database_url)!r}")
    url = f"postgresql://{rest}"
    try:
        conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise ValueError(
            "a database URL has only options that libpq knows, and a space, % or @ in it is written %20, %25 or %40;"
            f" this is none: {without_password(database_url)!r}"
        ) from None
    return url


def session_parameters(application_name: str, *, idle_in_transaction_ms: int, statement_ms: int) -> dict[str, Any]:
    """Connection parameters. Keepalives and the idle limit free the locks of a process that is paused or cut off."""
    return {
        "application_name": application_name,
        "connect_timeout": 5,
        "keepalives": 1,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 15_000,
        "client_encoding": "UTF8",
        "options": (
            f"-c idle_in_transaction_session_timeout={idle_in_transaction_ms} -c statement_timeout={statement_ms}"
            " -c timezone=UTC -c datestyle=ISO"
        ),
    }


async def connect(
    database_url: str, application_name: str, *, idle_in_transaction_ms: int = 10_000, statement_ms: int = 30_000
) -> AsyncConnection[TupleRow]:
    """A connection in autocommit mode: a transaction begins where one is asked for. Raises `DatabaseUnavailable`."""
    parameters = session_parameters(
        application_name, idle_in_transaction_ms=idle_in_transaction_ms, statement_ms=statement_ms
    )
    with translated():
        return await AsyncConnection.connect(libpq_url(database_url), autocommit=True, **parameters)
