"""Faults planted on purpose, in the scripts, the writer, the settler and the recovery: the simulation finds each."""

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from hashlib import sha1
from typing import Any
from unittest.mock import patch

import pytest

from engine.scripts import Script, Scripts, load_scripts
from persistence import event_rows
from persistence.event_rows import RowBatch
from persistence.reconcile import Reconciliation
from persistence.recovery import Attempt
from persistence.settler import Release
from persistence.sweeper import Sweeper
from persistence.writer import Writer
from tests.servers import Databases
from tests.simulation.servers import Servers, with_database

SEEDS_MAX = 60
SOAK_SEEDS_MAX = 400

Fault = Callable[[], AbstractContextManager[Any]]


def in_script(name: str, right: str, wrong: str) -> Fault:
    """A script with one text for another; the name `*` means each that has it."""

    def spoil(script: Script) -> Script:
        source = script.source.replace(right, wrong)
        return replace(script, source=source, sha1=sha1(source.encode(), usedforsecurity=False).hexdigest().encode())

    def plant() -> AbstractContextManager[Any]:
        scripts = load_scripts()
        chosen = {each for each, script in scripts.items() if name in {each, "*"} and right in script.source}
        assert chosen, f"{right!r} is nowhere"
        spoilt = {each: spoil(script) if each in chosen else script for each, script in scripts.items()}
        return patch("engine.engine.load_scripts", lambda: Scripts(spoilt))

    return plant


def rows_before_cursor() -> AbstractContextManager[Any]:
    """The rows and the cursor in two transactions."""
    advance = Writer._advance

    async def wrong(self: Writer, batch: RowBatch) -> None:
        await self._connection.execute("COMMIT")
        await self._connection.execute("BEGIN")
        await advance(self, batch)

    return patch.object(Writer, "_advance", wrong)


def durable_before_commit() -> AbstractContextManager[Any]:
    """Redis is told that events are durable before they are."""
    advance = Writer._advance

    async def wrong(self: Writer, batch: RowBatch) -> None:
        await advance(self, batch)
        await self._mark_durable(batch.cursors)

    return patch.object(Writer, "_advance", wrong)


@contextmanager
def release_not_written() -> Iterator[None]:
    """The fold forgets that released units are available again."""
    released = event_rows._APPLY["stock.released"]

    def stock_released(batch: RowBatch, event: Any, order: str, lines: str) -> None:
        released(batch, event, order, lines)
        for change in batch.stock_changes.values():
            change.available, change.received = 0, change.received - change.available

    with patch.dict(event_rows._APPLY, {"stock.released": stock_released}):
        yield


def living_orders_released() -> AbstractContextManager[Any]:
    """The sweeper releases what an order holds that awaits its payment still, as if that were over."""

    async def wrong(self: Sweeper, connection: Any, share: Collection[int]) -> int:
        cursor = await connection.execute(
            "SELECT partition, order_id::text, lines FROM reservation WHERE state = 'held'"
        )
        rows = await cursor.fetchall()
        steps = [
            Release(partition, order_id, tuple({line.split(":")[0]: None for line in lines.split(",")}))
            for partition, order_id, lines in rows
        ]
        await self._settler.release(connection, steps)
        return len(rows)

    return patch.object(Sweeper, "walk", wrong)


def nothing_adopted() -> AbstractContextManager[Any]:
    """Recovery leaves living orders without the stock that was lost."""

    async def wrong(*_: Any) -> None:
        pass

    return patch.object(Reconciliation, "_adopt", wrong)


def no_cut() -> AbstractContextManager[Any]:
    """Recovery does not wait until PostgreSQL has what the other partitions did."""

    async def wrong(*_: Any) -> None:
        pass

    return patch.object(Attempt, "_cut", wrong)


NOT_GIVEN_BACK = "if false then\n    set_coupon(coupons, order.coupon"
GUARD = ("generation ~= found[2]", "false")

FAULTS: dict[str, Fault] = {
    "one_unit_oversold": in_script(
        "reserve_stock", "item.available < item.quantity", "item.available + 1 < item.quantity"
    ),
    "released_twice": in_script("release_stock", "'state', 'released', ", ""),
    "confirmed_twice": in_script("confirm_stock", "'state', 'sold', ", ""),
    "one_coupon_too_many": in_script("issue_coupons", "issued >= quantity", "issued > quantity"),
    "coupon_not_given_back": in_script(
        "*",
        "if coupon then\n    set_coupon(coupons, order.coupon",
        "if false then\n    set_coupon(coupons, order.coupon",
    ),
    "event_says_another_balance": in_script("charge_wallet", "'balance', after", "'balance', amount"),
    "old_generations_go_on": in_script("*", *GUARD),
    "rows_before_cursor": rows_before_cursor,
    "durable_before_commit": durable_before_commit,
    "release_not_written": release_not_written,
    "living_orders_released": living_orders_released,
    "nothing_adopted": nothing_adopted,
}
"""Found soon."""

RARE_FAULTS: dict[str, Fault] = {
    "late_originals_reserve": in_script("reserve_stock", "now - created_ms > age_max_ms", "false"),
    "late_originals_place": in_script("*", "now - created_ms > limits.age_max_ms", "false"),
    "no_cut": no_cut,
}
"""They need several accidents at once."""


@pytest.fixture(scope="module")
def servers(databases: Databases) -> Iterator[Servers]:
    """Servers for all of these."""
    url = databases.make_migrated()
    with with_database(url) as servers:
        yield servers
    databases.drop(url)


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(servers: Servers, name: str) -> None:
    assert found_at(servers, FAULTS[name], SEEDS_MAX) is not None


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", RARE_FAULTS)
def test_a_fault_that_seldom_shows_is_found(servers: Servers, name: str) -> None:
    assert found_at(servers, RARE_FAULTS[name], SOAK_SEEDS_MAX) is not None


def found_at(servers: Servers, fault: Fault, seeds_max: int) -> int | None:
    """The first seed that fails with the fault."""
    with fault():
        for seed in range(seeds_max):
            simulation = servers.simulate(seed)
            try:
                simulation.run()
            except AssertionError as violation:
                print(f"seed {seed}: {violation}")  # noqa: T201 - pytest shows it where the test fails
                return seed
    return None
