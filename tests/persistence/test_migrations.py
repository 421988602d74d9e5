"""The migrations: both ways, and to exactly the tables that `persistence.tables` describes."""

import psycopg
import pytest
from sqlalchemy import create_engine

from persistence import migrations
from persistence.database import DatabaseUnavailable, SchemaMismatch
from persistence.tables import metadata

_SCHEMA = """
SELECT 'column', table_name, column_name, data_type, is_nullable, column_default, is_identity,
       datetime_precision::text
FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(c.oid), '', '', '', ''
FROM pg_constraint c WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'alembic_version'
UNION ALL
SELECT 'index', tablename, indexname, indexdef, '', '', '', ''
FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'
UNION ALL
SELECT 'options', relname, array_to_string(reloptions, ','), '', '', '', '', ''
FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND reloptions IS NOT NULL
ORDER BY 1, 2, 3
"""


def _schema(database_url: str) -> list[tuple[object, ...]]:
    with psycopg.connect(database_url) as connection:
        return connection.execute(_SCHEMA).fetchall()


def test_migrated_schema_is_the_one_that_the_tables_describe(database_url: str, empty_database_url: str) -> None:
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(empty_database_url))
    metadata.create_all(engine)
    engine.dispose()

    assert _schema(database_url) == _schema(empty_database_url)


def test_every_revision_goes_up_down_and_up_again(empty_database_url: str) -> None:
    assert migrations.current_revision(empty_database_url) is None

    migrations.upgrade(empty_database_url)
    first = _schema(empty_database_url)
    assert migrations.current_revision(empty_database_url) == migrations.head_revision()

    migrations.downgrade(empty_database_url, "base")
    assert _schema(empty_database_url) == []
    assert migrations.current_revision(empty_database_url) is None

    migrations.upgrade(empty_database_url)
    assert _schema(empty_database_url) == first


def test_upgrading_what_is_at_the_head_changes_nothing(database_url: str) -> None:
    before = _schema(database_url)

    migrations.upgrade(database_url)

    assert _schema(database_url) == before
    migrations.require_head(database_url)


def test_schema_newer_than_the_program_is_refused_with_the_remedy(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")

    with pytest.raises(SchemaMismatch, match="upgrade this program"):
        migrations.upgrade(database_url)
    with pytest.raises(SchemaMismatch, match="upgrade this program"):
        migrations.require_head(database_url)


def test_database_without_tables_is_refused_with_the_remedy(empty_database_url: str) -> None:
    with pytest.raises(SchemaMismatch, match="firstcome migrate"):
        migrations.require_head(empty_database_url)


def test_server_out_of_reach_is_said_to_be_unavailable() -> None:
    with pytest.raises(DatabaseUnavailable, match="FIRSTCOME_DATABASE_URL"):
        migrations.current_revision("postgresql://nobody@127.0.0.1:1/none")
