"""The settings of the worker and of the history reads: frozen, read from ``FIRSTCOME_*`` in one place."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.settings import SettingError, read_settings, setting
from persistence.database import libpq_url
from persistence.webhooks import read_secrets, require_address


def _database_url() -> Any:
    return setting(
        "postgresql://firstcome@localhost:5432/firstcome",
        unit="URL",
        reason="the PostgreSQL that makes everything durable; postgresql://user@/name?host=/folder for a socket",
    )


def _require_database_url(variable: str, url: str) -> None:
    try:
        libpq_url(url)
    except ValueError as error:
        raise SettingError(f"{variable}: {error}") from None


def _data_platform_secrets() -> Any:
    return setting(
        "",
        unit="secrets, with a space between",
        reason="what is posted is signed with each (`whsec_...`): one, or the new and the old one while they change",
        secret=True,
    )


def _read_secrets(text: str) -> tuple[str, ...]:
    try:
        secrets = read_secrets(text)
    except ValueError as error:
        raise SettingError(f"FIRSTCOME_DATA_PLATFORM_SECRETS {error}") from error
    if not secrets:
        raise SettingError(
            "FIRSTCOME_DATA_PLATFORM_SECRETS must hold a secret to sign with; `firstcome receiver --new-secret` makes "
            "one"
        )
    return secrets


@dataclass(frozen=True, slots=True)
class OwnerSettings:
    """What ``firstcome migrate`` is told."""

    database_url: str = _database_url()
    owner_database_url: str = setting(
        "", unit="URL", reason="how the owner of the tables logs in, who alone changes the schema; empty: as all do"
    )

    def __post_init__(self) -> None:
        _require_database_url("FIRSTCOME_OWNER_DATABASE_URL or FIRSTCOME_DATABASE_URL", self.url)

    @property
    def url(self) -> str:
        """Where to log in."""
        return self.owner_database_url or self.database_url

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> "OwnerSettings":
        """Read ``FIRSTCOME_*``; raises `SettingError`."""
        return read_settings(cls, environ)


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What ``firstcome worker`` is told; see `engine.settings.settings_table`."""

    database_url: str = _database_url()
    batch_events_max: int = setting(
        4_000, unit="events", reason="most events in one transaction; larger ones gain nothing and delay the first"
    )
    poll_ms: int = setting(10, unit="ms", reason="pause after a batch that was not full, so that small ones gather")
    poll_idle_ms: int = setting(25, unit="ms", reason="longest pause while nothing happens; bounds how late durable is")
    stream_keep_events: int = setting(
        5_000, unit="events per partition", reason="durable events kept in Redis, to feed again what PostgreSQL loses"
    )
    worker_dead_ms: int = setting(
        3_000, unit="ms", reason="a worker unseen for so long has no share of the polling; row locks stay the safety"
    )
    worker_metrics_host: str = setting("127.0.0.1", unit="address", reason="where a worker serves its metrics")
    worker_metrics_port: int = setting(
        0, unit="port", reason="serves them, and nothing else; 0 opens none. Another for each worker of a machine"
    )
    trust_every_ms: int = setting(1_000, unit="ms", reason="how often servers are compared with the trusted ones")
    hot_days: int = setting(
        3,
        unit="days",
        reason="settled orders and finished reservations of so many days are in Redis; others are read from PostgreSQL",
    )
    evict_every_ms: int = setting(
        30_000, unit="ms", reason="pause before it is asked again what has become cold; it has had days"
    )
    evict_rows_max: int = setting(
        5_000, unit="rows", reason="rows of one step of eviction; the next follows at once while steps are full"
    )
    settle_in_flight_max: int = setting(
        256, unit="orders", reason="settled at once; the rest of Redis is for the customers"
    )
    settle_every_ms: int = setting(
        200, unit="ms", reason="pause after confirms, so that the next gather: a partition confirms many in one call"
    )
    settle_queue_max: int = setting(
        20_000, unit="orders", reason="paid orders that wait for their confirm; past it the walk finds them"
    )
    walk_every_ms: int = setting(
        2_000, unit="ms", reason="how often a step of the walk over held reservations, due orders and grants is made"
    )
    walk_rows_max: int = setting(
        5_000, unit="rows", reason="rows of one step; a walk over all that is held is over within a minute"
    )
    orphan_age_ms: int = setting(
        45_000, unit="ms", reason="a reservation without an order this old belongs to a flow that died"
    )
    grant_age_ms: int = setting(
        5_000, unit="ms", reason="an issue without its coupon this old is granted by the worker; the API is faster"
    )
    audit_every_ms: int = setting(
        3_000, unit="ms", reason="pause between two steps of the audit, each of one partition and a page of each table"
    )
    audit_page_rows: int = setting(100, unit="rows", reason="rows of each table in one step of the audit")
    audit_age_ms: int = setting(
        60_000, unit="ms", reason="what is younger may be in motion between partitions; also how long the audit waits"
    )
    audit_confirm_ms: int = setting(
        5_000, unit="ms", reason="a mismatch is looked at again after this, and is an alarm when it is still there"
    )
    data_platform_url: str = setting(
        "", unit="URL", reason="where paid orders are posted as CloudEvents; empty keeps them waiting"
    )
    data_platform_secrets: str = _data_platform_secrets()
    delivery_batch_max: int = setting(
        100, unit="events", reason="most events in one post, each of another user, so that order per user holds"
    )
    delivery_in_flight_max: int = setting(
        8, unit="requests", reason="posts under way at once; one while the data platform takes nothing"
    )
    delivery_timeout_ms: int = setting(10_000, unit="ms", reason="a post that is not answered by then has failed")
    delivery_backoff_ms: int = setting(
        500, unit="ms", reason="pause after the first failure; doubles with each, with jitter of one half"
    )
    delivery_backoff_max_ms: int = setting(600_000, unit="ms", reason="longest pause between two tries")
    delivery_tries_max: int = setting(
        150, unit="tries", reason="then the delivery is dead until it is replayed; about a day at the longest pause"
    )
    delivery_late_ms: int = setting(
        300_000, unit="ms", reason="a paid order that waits longer than this for the data platform raises an alarm"
    )

    def __post_init__(self) -> None:
        _require_database_url("FIRSTCOME_DATABASE_URL", self.database_url)
        for name in (
            "batch_events_max",
            "settle_in_flight_max",
            "walk_rows_max",
            "evict_rows_max",
            "delivery_batch_max",
            "delivery_in_flight_max",
            "delivery_tries_max",
            "audit_page_rows",
        ):
            if getattr(self, name) < 1:
                raise SettingError(f"FIRSTCOME_{name.upper()} must be at least 1, not {getattr(self, name)}")
        if self.data_platform_url:
            try:
                require_address(self.data_platform_url)
            except ValueError as error:
                raise SettingError(f"FIRSTCOME_DATA_PLATFORM_URL {error}") from error
            _read_secrets(self.data_platform_secrets)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> "WorkerSettings":
        """Read ``FIRSTCOME_*``; raises `SettingError`."""
        return read_settings(cls, environ)


@dataclass(frozen=True, slots=True)
class ReceiverSettings:
    """What the demo's data platform is told."""

    data_platform_secrets: str = _data_platform_secrets()

    @property
    def secrets(self) -> tuple[str, ...]:
        """Each of them signs what is taken. Raises `SettingError` where there is none."""
        return _read_secrets(self.data_platform_secrets)


@dataclass(frozen=True, slots=True)
class HistorySettings:
    """How an API process reads PostgreSQL."""

    database_url: str = _database_url()
    reader_database_url: str = setting(
        "", unit="URL", reason="how an API process logs in, which reads and changes next to nothing; empty: as all do"
    )
    history_pool_size: int = setting(
        4, unit="connections per process", reason="history must not take all of PostgreSQL"
    )
    history_wait_ms: int = setting(1_000, unit="ms", reason="waiting longer for a connection is answered 503")
    history_statement_ms: int = setting(2_000, unit="ms", reason="a read that takes longer is ended and answered 503")

    def __post_init__(self) -> None:
        _require_database_url("FIRSTCOME_READER_DATABASE_URL or FIRSTCOME_DATABASE_URL", self.url)

    @property
    def url(self) -> str:
        """Where to log in."""
        return self.reader_database_url or self.database_url

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> "HistorySettings":
        """Read ``FIRSTCOME_*``; raises `SettingError`."""
        return read_settings(cls, environ)
