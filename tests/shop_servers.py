"""A running shop on an empty Redis of its own and a fresh database of the session's PostgreSQL."""

import contextlib
import shutil
from collections.abc import Iterator

from tests.running_shop import RunningShop
from tests.servers import Databases, opened_redis, reachable_folder


@contextlib.contextmanager
def opened_shop(
    databases: Databases, *, api_count: int = 1, worker_count: int = 1, **settings: object
) -> Iterator[RunningShop]:
    """A shop that sells. `settings` become `FIRSTCOME_*`: `payment_deadline_ms=1500`."""
    folder = reachable_folder()
    database_url = databases.make_migrated()
    environment = {f"FIRSTCOME_{name.upper()}": str(value) for name, value in settings.items()}
    try:
        with (
            opened_redis(databases.redis_kind) as redis,
            RunningShop(folder, redis.url, database_url, api_count, worker_count, environment) as shop,
        ):
            yield shop
    finally:
        databases.drop(database_url)
        shutil.rmtree(folder)
