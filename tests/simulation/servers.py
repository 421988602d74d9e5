"""The servers that simulations run on, one after the other: a Valkey and a PostgreSQL, emptied for each."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from api.commands.embedded_postgres import EmbeddedPostgres
from api.commands.embedded_valkey import EmbeddedValkey
from tests.servers import Databases, reachable_folder
from tests.simulation.network import Wire
from tests.simulation.postgres import Sessions
from tests.simulation.simulation import STEPS, Simulation


@dataclass(frozen=True, slots=True)
class Servers:
    """Where simulations run."""

    wire: Wire
    sessions: Sessions

    def simulate(self, seed: int, steps: int = STEPS) -> Simulation:
        """A simulation, ready to run."""
        return Simulation(seed, steps, self.wire, self.sessions)


@contextmanager
def connected(redis_url: str, database_url: str) -> Iterator[Servers]:
    """Servers that are there; the database is a migrated one, and the Redis nobody else's."""
    wire, sessions = Wire(redis_url), Sessions(database_url)
    try:
        # Short nodes, so that streams are trimmed after a few events.
        wire.run([("CONFIG", "SET", "stream-node-max-entries", 4)])
        yield Servers(wire, sessions)
    finally:
        wire.run([("CONFIG", "SET", "stream-node-max-entries", 100)])
        sessions.close()
        wire.close()


@contextmanager
def with_database(database_url: str) -> Iterator[Servers]:
    """A Valkey of one's own, with a migrated database that is there."""
    folder = Path(tempfile.mkdtemp(prefix="firstcome-simulation-"))
    try:
        with (
            EmbeddedValkey(folder, settings={"appendonly": "no"}) as valkey,
            connected(valkey.url, database_url) as servers,
        ):
            yield servers
    finally:
        shutil.rmtree(folder)


@contextmanager
def started() -> Iterator[Servers]:
    """Servers of one's own."""
    folder = reachable_folder()
    try:
        with EmbeddedPostgres(folder) as postgres, with_database(Databases(postgres).make_migrated()) as servers:
            yield servers
    finally:
        shutil.rmtree(folder)
