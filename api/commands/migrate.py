"""`firstcome migrate`: the PostgreSQL schema."""

import click

from engine.settings import SettingError, without_password
from persistence.database import DatabaseError
from persistence.migrations import current_revision, upgrade
from persistence.settings import WorkerSettings


@click.command()
def migrate() -> None:
    """Bring the PostgreSQL schema to this program's version; nothing happens where it is there already."""
    try:
        url = WorkerSettings.from_environment().database_url
        upgrade(url)
        click.echo(f"{without_password(url)} is at revision {current_revision(url)}")
    except (SettingError, DatabaseError) as error:
        raise click.ClickException(str(error)) from error
