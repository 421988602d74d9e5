"""Which revisions of the schema this program knows, by the names of its migrations: Alembic takes a while to load."""

from functools import cache
from importlib.resources import files

from persistence.database import SchemaMismatch


@cache
def known_revisions() -> tuple[str, ...]:
    """All of them, the newest last."""
    folder = files("persistence") / "migrations" / "versions"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.startswith("revision_"))
    return tuple(name.removeprefix("revision_").removesuffix(".py") for name in names if name.endswith(".py"))


def head_revision() -> str:
    """The newest revision that this program knows."""
    return known_revisions()[-1]


def require_revision(current: str | None) -> None:
    """Raise `SchemaMismatch`, with the remedy, unless this is `head_revision`."""
    refuse_newer(current)
    if current != head_revision():
        raise SchemaMismatch(f"it is at {current}, this program needs {head_revision()}: run `firstcome migrate`")


def refuse_newer(current: str | None) -> None:
    """Raise `SchemaMismatch` for a schema that a later program has made."""
    if current is not None and current not in known_revisions():
        raise SchemaMismatch(f"it is at {current}, newer than {head_revision()}: upgrade this program")
