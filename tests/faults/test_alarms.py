"""Each kind of alarm, brought about by what it warns of in a running shop: it is counted on `/metrics`, listed in
`/admin/v1/alarms`, told to the console with what to do, and its runbook is there.

Every provocation is a function of the kind's name; a tidy test holds the two lists together.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, cast

import httpx
import psycopg
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from api.commands.listening import free_port, http_url
from engine.keys import Keys
from engine.partitions import Partitions
from persistence.alarms import KINDS, STOCK_SHORT, UNTRUSTED
from persistence.webhooks import make_secret
from tests.browser import opened_browser
from tests.console_stream import watching
from tests.running_shop import PARTITIONS, RunningShop, charge, eventually, place, put_product
from tests.servers import Databases, redis_client
from tests.shop_servers import opened_shop

SHOWN_WITHIN_S: Final = 30.0
WAITING: Final = 10
"""So many users' deliveries wait for longer than a page takes to show it."""
SETTINGS: Final[Mapping[str, Any]] = {
    # Nobody listens there.
    "data_platform_url": "http://127.0.0.1:9",
    "data_platform_secrets": make_secret(),
    "delivery_backoff_ms": 100,
    "delivery_tries_max": 3,
    "delivery_late_ms": 1,
    "trust_every_ms": 100,
    "audit_every_ms": 100,
    "audit_age_ms": 500,
    "audit_confirm_ms": 200,
}
"""A worker that is as soon impatient as it can be."""


@dataclass
class Sick:
    """A shop to be harmed, and what an operator sees of it."""

    shop: RunningShop
    worker_url: str
    redis: redis.Redis
    postgres: psycopg.Connection[Any]
    partitions: Partitions = field(default_factory=lambda: Partitions(PARTITIONS))
    numbers: Iterator[int] = field(default_factory=count)
    subjects: dict[str, tuple[int | None, str]] = field(default_factory=dict)
    """Of each kind provoked, the partition and subject that its alarm must have."""
    listed: dict[str, dict[str, Any]] = field(default_factory=dict)
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    counted: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keys = Keys(self.partitions)
        self.client = self.shop.client()

    def id_in(self, partition: int) -> str:
        """A new id of that partition."""
        return next(name for n in self.numbers if self.partitions.of(name := f"id-{n}") == partition)

    def buyer(self, partition: int) -> str:
        """A new user of that partition, who has money."""
        user = self.id_in(partition)
        charge(self.client, user)
        return user

    def value(self, query: str, *values: Any) -> Any:
        """The one value of a query."""
        row = self.postgres.execute(cast(Any, query), values).fetchone()
        return None if row is None else row[0]

    def meta(self, partition: int) -> dict[bytes, bytes]:
        return cast("dict[bytes, bytes]", self.redis.hgetall(self.keys.meta(partition)))

    def make_durable(self, partition: int) -> None:
        """Waits until all that the partition has is in PostgreSQL, and Redis knows it."""
        eventually(lambda: (meta := self.meta(partition))[b"seq"] == meta.get(b"durable"), what="all is durable")

    def append(self, partition: int, kind: str, **fields: str) -> str:
        """Puts an event into a partition's stream that no script would; its place."""
        meta = self.meta(partition)
        seq = int(meta[b"seq"]) + 1
        place = f"{meta[b'epoch'].decode()}-{seq}"
        event: dict[Any, Any] = {"type": kind, "v": "1", "at": int(time.time() * 1000), **fields}
        self.redis.xadd(self.keys.events(partition), event, id=place)
        self.redis.hset(self.keys.meta(partition), "seq", str(seq))
        return place

    def expect(self, kind: str, partition: int | None, subject: str) -> None:
        self.subjects[kind] = (partition, subject)

    def look(self) -> None:
        """Notes which of the alarms that were provoked an operator sees now, in each place."""
        for kind, wanted in self.subjects.items():
            if kind not in self.listed:
                items = self.client.get("/admin/v1/alarms", params={"state": "open", "limit": 100}).json()["items"]
                found = [
                    item for item in items if (item["kind"], item["partition"], item["subject"]) == (kind, *wanted)
                ]
                if found:
                    self.listed[kind] = found[0]
        page = httpx.get(f"{self.worker_url}/metrics", trust_env=False).text
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if sample.name == "firstcome_alarms_open" and sample.value:
                    self.counted[sample.labels["kind"]] = sample.value

    def is_shown(self, *kinds: str) -> bool:
        """Whether all of these are seen everywhere."""
        self.look()
        return all(kind in seen for kind in kinds for seen in (self.listed, self.told, self.counted))


def stock_short(sick: Sick) -> None:
    """Redis is emptied while units that had just come in are sold, and not yet durable there. While the partition's
    row is locked it cannot be rebuilt either: `partition_untrusted` stands until then."""
    here, elsewhere = 1, 2
    product, user = sick.id_in(here), sick.buyer(elsewhere)
    put_product(sick.client, product, price=10, one=1)
    sick.make_durable(here)
    with sick.postgres.transaction():
        sick.postgres.execute("SELECT FROM partition_cursor WHERE partition = %s FOR UPDATE", (here,))
        adjustments = f"/admin/v1/products/{product}/stock/one/adjustments"
        assert sick.client.post(adjustments, json={"delta": 5, "reason": "a parcel"}).is_success
        order = place(sick.client, user, (product, "one", 4), at="checkout").json()["order_id"]
        eventually(lambda: bool(sick.value("SELECT count(*) FROM orders WHERE order_id = %s", order)), what="the order")
        sick.redis.flushall()
        sick.expect(UNTRUSTED, here, "server")
        with contextlib.suppress(AssertionError):
            eventually(lambda: sick.is_shown(UNTRUSTED), within_s=SHOWN_WITHIN_S)
    sick.expect(STOCK_SHORT, here, f"{order} one")
    eventually(lambda: sick.client.get("/readyz").json()["recovering_partitions"] == [], within_s=30, what="recovery")


partition_untrusted = stock_short


def reservation_lost(sick: Sick) -> None:
    """What an open order holds is gone when it is paid."""
    here, elsewhere = 3, 4
    product, user = sick.id_in(here), sick.buyer(elsewhere)
    put_product(sick.client, product, price=10, one=9)
    order = place(sick.client, user, (product, "one", 2)).json()["order_id"]
    assert sick.redis.delete(sick.keys.reservation(here, order)) == 1
    assert sick.client.post(f"/v1/users/{user}/orders/{order}/payment").is_success
    sick.expect("reservation_lost", here, order)


def audit_mismatch(sick: Sick) -> None:
    """Somebody changes a balance behind the shop's back."""
    here = 5
    user = sick.buyer(here)
    sick.make_durable(here)
    sick.redis.hincrby(sick.keys.wallet(here, user), "balance", 1)
    sick.expect("audit_mismatch", here, f"wallet:{user}")


def delivery_dead(sick: Sick) -> None:
    """The data platform is not there, and a user buys; the next order of the same user waits behind it."""
    user = sick.buyer(6)
    product = sick.id_in(7)
    put_product(sick.client, product, price=10, one=9)
    for _ in range(2):
        assert place(sick.client, user, (product, "one", 1), at="checkout").is_success
    sick.expect("delivery_dead", None, "data platform")


def delivery_late(sick: Sick) -> None:
    """The same, before it is given up."""
    delivery_dead(sick)
    sick.expect("delivery_late", None, "data platform")


def unknown_event(sick: Sick) -> None:
    """An API of a later version writes what this worker does not know."""
    place = sick.append(8, "wallet.painted", user="ann")
    sick.expect("unknown_event", 8, place)


def partition_stopped(sick: Sick) -> None:
    """An event tells of a reservation that PostgreSQL knows nothing of."""
    order = "019ab000-0000-7000-8000-000000000001"
    sick.append(9, "stock.confirmed", orders=order, day="20261122", lines="tea:one:1")
    sick.expect("partition_stopped", 9, "writer")


def postgres_behind(sick: Sick) -> None:
    """PostgreSQL goes back to before what Redis has long let go."""
    here = 10
    user = sick.buyer(here)
    charge(sick.client, user)
    sick.make_durable(here)
    for entry, _ in cast("list[Any]", sick.redis.xrange(sick.keys.events(here))):
        sick.redis.xdel(sick.keys.events(here), entry)
    with sick.postgres.transaction():
        sick.postgres.execute("UPDATE partition_cursor SET seq = 0, server = NULL WHERE partition = %s", (here,))
        sick.postgres.execute("DELETE FROM ledger_entry WHERE user_id = %s", (user,))
        sick.postgres.execute("DELETE FROM wallet WHERE user_id = %s", (user,))
    sick.expect("postgres_behind", here, "PostgreSQL")


PROVOCATIONS: Final[Mapping[str, Callable[[Sick], None]]] = {
    # A stopped writer, and a PostgreSQL that went back, hold every recovery up: what needs one comes before them.
    "stock_short": stock_short,
    "partition_untrusted": partition_untrusted,
    "reservation_lost": reservation_lost,
    "audit_mismatch": audit_mismatch,
    "delivery_dead": delivery_dead,
    "delivery_late": delivery_late,
    "unknown_event": unknown_event,
    "partition_stopped": partition_stopped,
    "postgres_behind": postgres_behind,
}


@pytest.fixture(scope="module")
def sick(databases: Databases) -> Iterator[Sick]:
    """A shop to which all of it has happened."""
    port = free_port()
    with opened_shop(databases, worker_metrics_port=port, **SETTINGS) as shop:
        with (
            redis_client(shop.redis_url) as client,
            psycopg.connect(shop.database_url, autocommit=True) as connection,
        ):
            sick = Sick(shop, http_url("127.0.0.1", port), client, connection)
            reader = threading.Thread(target=_read_stream, args=(shop.url(), sick.told), daemon=True)
            reader.start()
            for provoke in dict.fromkeys(PROVOCATIONS.values()):
                provoke(sick)
            # What was not seen in time fails the test of its kind.
            with contextlib.suppress(AssertionError):
                eventually(lambda: sick.is_shown(*KINDS), within_s=SHOWN_WITHIN_S)
        yield sick
        for process in (*shop.apis, *shop.workers):
            process.stop()
        reader.join(timeout=10)


def _read_stream(url: str, told: dict[str, dict[str, Any]]) -> None:
    with watching(url) as sights:
        for sight in sights:
            for alarm in sight["alarms"]:
                told[alarm["kind"]] = alarm


@pytest.mark.parametrize("kind", KINDS)
def test_what_goes_wrong_is_shown_everywhere_with_what_to_do(sick: Sick, kind: str) -> None:
    listed, told = sick.listed[kind], sick.told[kind]
    assert sick.counted[kind] >= 1
    assert listed["remedy"]
    assert listed["detail"]
    assert listed["cleared_at"] is None
    assert (told["remedy"], told["runbook"]) == (listed["remedy"], listed["runbook"])
    page, _, entry = listed["runbook"].partition("#")
    assert f'<section id="{entry}">' in httpx.get(f"{sick.shop.url()}{page}", trust_env=False).text


@pytest.mark.soak
def test_the_page_shows_each_alarm_that_stands(sick: Sick) -> None:
    """Those of untrusted partitions come last: by now the stopped writer lets none be made anew."""
    with opened_browser() as browser:
        page = browser.new_page()
        page.goto(f"{sick.shop.url()}/console")
        # What waited may have been given up by now, and one delivery at a time finds out that nobody is there.
        for _ in range(WAITING):
            delivery_late(sick)
        for kind in sorted(KINDS, key=lambda kind: kind == UNTRUSTED):
            if kind == UNTRUSTED:
                assert page.locator("#alarm-list li", has_text="partition untrusted").count() == 0
                sick.redis.flushall()
            entry = page.locator("#alarm-list li", has_text=kind.replace("_", " "))
            entry.locator(".do", has_text=sick.listed[kind]["remedy"]).wait_for()
            assert entry.get_by_role("link").get_attribute("href") == f"runbook#{kind}"
        page.locator("#partitions-say", has_text="0 of 64 trusted").wait_for()
        page.context.close()
