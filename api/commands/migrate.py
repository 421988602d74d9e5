"""`firstcome migrate`: the PostgreSQL schema."""

import click

from engine.settings import SettingError, without_password
from persistence.accounts import READER, WRITER
from persistence.database import DatabaseError
from persistence.migrations import current_revision, upgrade
from persistence.settings import OwnerSettings


@click.command()
def migrate() -> None:
    """Bring the PostgreSQL schema to this program's version; nothing happens where it is there already."""
    try:
        url = OwnerSettings.from_environment().url
        granted = upgrade(url)
        click.echo(f"{without_password(url)} is at revision {current_revision(url)}")
        if granted.done:
            click.echo(f"{WRITER} and {READER} have their rights: make the worker's and the API's logins members")
        else:
            click.echo(f"No roles were granted ({granted.why}): every process logs in as the owner")
    except (SettingError, DatabaseError) as error:
        raise click.ClickException(str(error)) from error
