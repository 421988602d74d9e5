"""The roles in PostgreSQL: each may do what it needs, and nothing to what is of record."""

from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import create_engine, text

from engine.engine import Engine
from persistence.accounts import READER, READER_WRITES, WRITER, WRITER_GRANTS, grant
from persistence.migrations import add_login, upgrade
from persistence.sqlalchemy_engines import migration_engine
from persistence.tables import metadata
from tests.persistence.shop import fill, line, write_all

OF_RECORD = {"ledger_entry", "stock_adjustment", "order_line", "coupon_issue", "set_aside_event"}

As = Callable[[str], psycopg.Connection[tuple[object, ...]]]


def test_every_table_has_its_rights() -> None:
    assert WRITER_GRANTS.keys() == metadata.tables.keys() | {"alembic_version"}
    assert READER_WRITES.keys() <= WRITER_GRANTS.keys()
    assert {table for table, rights in WRITER_GRANTS.items() if rights == "SELECT, INSERT"} == OF_RECORD


@pytest.fixture
def connect_as(database_url: str) -> Iterator[As]:
    """A connection that acts as one of the roles."""
    upgrade(database_url)
    opened = []

    def connect(role: str) -> psycopg.Connection[tuple[object, ...]]:
        connection = psycopg.connect(database_url, autocommit=True)
        opened.append(connection)
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
        return connection

    yield connect
    for connection in opened:
        connection.close()


@pytest.mark.parametrize("table", sorted(OF_RECORD))
def test_the_writer_changes_nothing_that_is_of_record(connect_as: As, table: str) -> None:
    writer = connect_as(WRITER)
    name = sql.Identifier(table)
    for statement in ("DELETE FROM {}", "UPDATE {} SET partition = 0", "TRUNCATE {}", "DROP TABLE {}"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            writer.execute(sql.SQL(statement).format(name))
    writer.execute(sql.SQL("SELECT FROM {}").format(name))


def test_the_reader_reads_and_puts_deliveries_back_in_line(connect_as: As) -> None:
    reader = connect_as(READER)
    for table in metadata.tables:
        reader.execute(sql.SQL("SELECT FROM {} LIMIT 1").format(sql.Identifier(table)))
        for statement in ("DELETE FROM {}", "INSERT INTO {} DEFAULT VALUES"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                reader.execute(sql.SQL(statement).format(sql.Identifier(table)))
    reader.execute("UPDATE outbox SET state = 'pending', tries = 0, replay_key = 'k'")
    for statement in ("UPDATE outbox SET order_id = NULL", "UPDATE wallet SET balance = 0"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute(statement)


async def test_a_writer_by_its_own_login_writes_what_a_shop_does(
    engine: Engine, database_url: str, connect_as: As
) -> None:
    """The worker's own tests run as the owner; this one shows that the rights suffice for a writer's round."""
    add_login(database_url, "test_worker", WRITER)
    await fill(engine)
    await engine.wallets.charge("ann", 1_000)
    order = await engine.orders.checkout("ann", [line()], None)

    as_worker = database_url.replace("://firstcome@", "://test_worker@")
    assert as_worker != database_url
    await write_all(engine, as_worker)

    rows = connect_as(READER).execute("SELECT status FROM orders WHERE order_id = %s", (order.order_id,)).fetchall()
    assert rows == [("completed",)]


def test_rights_that_were_given_by_hand_are_taken_back(database_url: str, connect_as: As) -> None:
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute(f"GRANT DELETE ON ledger_entry TO {WRITER}")
    upgrade(database_url)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connect_as(WRITER).execute("DELETE FROM ledger_entry")


def test_an_owner_who_may_make_no_roles_goes_on_without(database_url: str) -> None:
    upgrade(database_url)
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("DO $$ BEGIN CREATE ROLE test_powerless; EXCEPTION WHEN duplicate_object THEN END $$")
    with migration_engine(database_url) as pool, pool.begin() as connection:
        connection.execute(text("SET ROLE test_powerless"))
        granted = grant(connection)
        assert connection.execute(text("SELECT 1")).scalar() == 1
    assert not granted.done
    assert "permission denied" in granted.why


def test_schemas_of_one_server_may_be_made_at_the_same_time(database_url: str, empty_database_url: str) -> None:
    """Roles belong to the server, not to a database."""
    first = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(database_url))
    with first.begin() as connection:
        connection.execute(text("SELECT 1"))
        assert upgrade(empty_database_url).done
        assert grant(connection).done
    first.dispose()
