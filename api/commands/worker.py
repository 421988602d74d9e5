"""`firstcome worker`: the process that makes everything durable."""

import click
import uvloop

from api.commands.logs import configure_logs
from api.commands.setting_names import warn_of_unknown_settings
from api.tracing import TraceSettings, begin_traces
from engine.errors import EngineError
from engine.settings import EngineSettings, SettingError
from persistence.database import DatabaseError
from persistence.settings import WorkerSettings
from persistence.worker import StartRefused, run


@click.command()
def worker() -> None:
    """Make what Redis decided durable in PostgreSQL, and finish what was begun.

    Run as many as you like; they share the work. Where Redis and PostgreSQL are is read from FIRSTCOME_REDIS_URL and
    FIRSTCOME_DATABASE_URL. A SIGTERM ends it once the batch under way is committed.
    """
    try:
        configure_logs()
        warn_of_unknown_settings()
        if TraceSettings.from_environment().traces:
            begin_traces("firstcome-worker")
        uvloop.run(run(WorkerSettings.from_environment(), EngineSettings.from_environment()))
    except (SettingError, StartRefused, DatabaseError, EngineError) as error:
        raise click.ClickException(str(error)) from error
