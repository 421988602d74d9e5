"""Run by Alembic, on the connection (and in the transaction) that `persistence.migrations` opened."""

from alembic import context

from persistence.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
