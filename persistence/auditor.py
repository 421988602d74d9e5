"""The auditor: lays Redis and PostgreSQL side by side while traffic runs, and holds PostgreSQL to the laws.

Nothing that it calls a mismatch can come from traffic. An entity carries the place of its last change in both stores;
PostgreSQL follows Redis and is read first. So equal places must mean equal content, and of unequal ones Redis' must be
beyond what PostgreSQL had read; anything else is wrong. What is in motion is counted and left for another time.

It repairs nothing: what it finds, an operator has to understand.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol

from engine.engine import Engine
from engine.errors import EngineError
from engine.events import Event, decode_event
from engine.lanes import deadline_in
from engine.together import all_of, answers_of, parts
from persistence.audited import (
    SUBJECTS,
    Connection,
    Entity,
    Mark,
    Subject,
    changed_by,
    is_id,
    not_recorded,
    page,
    sample,
)
from persistence.conservation import LAWS, Law, breaches
from persistence.database import translated
from persistence.images import NO_PLACE, Image, Place, read_postgres, read_redis

EXAMPLES_MAX = 10
BEST_SELLER_DAYS = 3
"""Days whose sales counters are always in Redis: those that the best sellers are of."""
SALES_TRIES = 3
SALES_PAUSE_S = 0.02
HORIZON_FOR_S = 5.0
"""How long a horizon is used: an older one only leaves more out."""
LANES_WITHIN_S = 2.0
SCAN_COUNT = 500

# A page's rows are found by index, however large the tables have grown: statistics, which lag behind growing tables,
# must not talk the planner into reading all of one.
PLANNER = """SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
             SET enable_material = off; SET max_parallel_workers_per_gather = 0"""

_KIND_OF_KEY = {
    "user": Subject.WALLET,
    "product": Subject.PRODUCT,
    "order": Subject.ORDER,
    "reservation": Subject.RESERVATION,
    "campaign": Subject.CAMPAIGN,
    "coupons": Subject.COUPON,
    "issued": Subject.ISSUE,
}


@dataclass(frozen=True, slots=True)
class AuditLimits:
    """How much at a time, and how patient.

    ``age_s``: what is younger is not held to the laws across partitions. ``confirm_s``: how long after it was found a
    mismatch is looked at again. ``pause_s``: rest between two pages.
    """

    page_rows: int = 500
    recent_events: int = 200
    age_s: float = 60.0
    confirm_s: float = 2.0
    pause_s: float = 0.01


@dataclass(frozen=True, slots=True)
class Mismatch:
    """An entity and what is wrong with it, in words; ``check`` is the slug of the check that found it."""

    check: str
    entity: Entity
    detail: str


@dataclass(slots=True)
class Tally:
    """What one check has looked at. ``moving``: changing too fast to compare. ``cold``: let go by Redis, as it may."""

    title: str
    compared: int = 0
    moving: int = 0
    cold: int = 0
    mismatches: int = 0
    examples: list[Mismatch] = field(default_factory=list)

    def add(self, outcome: "Outcome") -> None:
        """Count an outcome in."""
        self.compared += outcome.compared
        self.moving += outcome.moving
        self.cold += outcome.cold
        self.mismatches += len(outcome.mismatches)
        self.examples += outcome.mismatches[: EXAMPLES_MAX - len(self.examples)]


@dataclass(slots=True)
class Outcome:
    """What one look of a check at some entities found."""

    compared: int = 0
    moving: int = 0
    cold: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)


@dataclass(slots=True)
class AuditReport:
    """The tallies by slug, in the order of the checks."""

    tallies: dict[str, Tally] = field(default_factory=dict)

    @property
    def mismatches(self) -> int:
        """All of them."""
        return sum(tally.mismatches for tally in self.tallies.values())

    @property
    def examples(self) -> list[Mismatch]:
        """Some of each check."""
        return [example for tally in self.tallies.values() for example in tally.examples]


class Check(Protocol):
    """A way to look at entities of one subject."""

    @property
    def slug(self) -> str:
        """Its name in alarms."""

    @property
    def title(self) -> str:
        """Its name for people."""

    @property
    def subject(self) -> Subject:
        """What it looks at."""

    async def look(self, auditor: "Auditor", entities: Sequence[Entity]) -> Outcome:
        """Look at them now. Raises `EngineError` or `DatabaseError`."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Redis beside PostgreSQL."""

    slug: str
    title: str
    subject: Subject

    async def look(self, auditor: "Auditor", entities: Sequence[Entity]) -> Outcome:
        recorded = await read_postgres(auditor.connection, self.subject, entities)
        held, unread = await auditor.read_redis(self.subject, entities)
        outcome = Outcome(moving=unread)
        for entity in entities:
            if entity.partition not in held:
                continue
            judge(self.slug, outcome, entity, held[entity.partition].get(entity), recorded.images.get(entity),
                  recorded.cursors.get(entity.partition, NO_PLACE))  # fmt: skip
        return outcome


def judge(
    slug: str, outcome: Outcome, entity: Entity, held: Image | None, recorded: Image | None, cursor: Place
) -> None:
    """Compare two images of an entity, of which PostgreSQL's was taken first, when it had read up to ``cursor``."""
    if held is None and recorded is None:
        return
    if held is None:
        assert recorded is not None, "else there is none of the two"
        if recorded.may_be_cold:
            outcome.cold += 1
            return
        detail = "in PostgreSQL only"
    elif recorded is None:
        if held.place is not None and held.place > cursor:
            outcome.moving += 1
            return
        detail = "in Redis only"
    elif recorded.place is not None and held.place != recorded.place:
        if held.place is not None and held.place > cursor:
            outcome.moving += 1
            return
        detail = f"last changed at {_place(held.place)} in Redis, at {_place(recorded.place)} in PostgreSQL"
    else:
        detail = "; ".join(
            f"{name} {held.fields.get(name, '')!r} in Redis, {recorded.fields.get(name, '')!r} in PostgreSQL"
            for name in {**held.fields, **recorded.fields}
            if held.fields.get(name) != recorded.fields.get(name)
        )
    outcome.compared += 1
    if detail:
        outcome.mismatches.append(Mismatch(slug, entity, detail))


def _place(place: Place | None) -> str:
    return f"{place[0]}-{place[1]}" if place else "no place"


@dataclass(frozen=True, slots=True)
class LawCheck:
    """PostgreSQL held to a law."""

    law: Law

    @property
    def slug(self) -> str:
        return self.law.slug

    @property
    def title(self) -> str:
        return self.law.title

    @property
    def subject(self) -> Subject:
        return self.law.subject

    async def look(self, auditor: "Auditor", entities: Sequence[Entity]) -> Outcome:
        before = await auditor.horizon() if self.law.across else datetime.now(UTC)
        named = {(each.id, each.owner): each for each in entities}
        outcome = Outcome(compared=len(entities))
        for breach in await breaches(auditor.connection, self.law, entities, before):
            entity = named.get((breach.id, breach.owner))
            # Some more rows may be looked at than those that were asked for: see SCOPES.
            if entity is not None:
                outcome.mismatches.append(Mismatch(self.slug, entity, breach.detail))
        return outcome


@dataclass(frozen=True, slots=True)
class SalesComparison:
    """A partition's sales counters beside PostgreSQL's, where the partition is fully written."""

    slug: str = "sales"
    title: str = "daily sales"
    subject: Subject = Subject.PARTITION

    async def look(self, auditor: "Auditor", entities: Sequence[Entity]) -> Outcome:
        outcome = Outcome()
        for entity in entities:
            for day in auditor.sales_days():
                await self._look_at_day(auditor, outcome, entity, day)
        return outcome

    async def _look_at_day(self, auditor: "Auditor", outcome: Outcome, entity: Entity, day: date) -> None:
        for _ in range(SALES_TRIES):
            cursor, recorded = await auditor.recorded_sales(entity.partition, day)
            place, held = await auditor.held_sales(entity.partition, day)
            if place == cursor:
                break
            await asyncio.sleep(SALES_PAUSE_S)
        else:
            outcome.moving += 1
            return
        outcome.compared += 1
        detail = ", ".join(
            f"{product} {held.get(product, 0)} in Redis, {recorded.get(product, 0)} in PostgreSQL"
            for product in sorted({*held, *recorded})
            if held.get(product, 0) != recorded.get(product, 0)
        )
        if detail:
            outcome.mismatches.append(Mismatch(self.slug, entity, f"{day}: {detail}"))


COMPARISONS: tuple[Check, ...] = (
    Comparison("wallet", "wallets: balance, coupon number, open order", Subject.WALLET),
    Comparison("product", "products: name, price, stock items", Subject.PRODUCT),
    Comparison("order", "orders: status, amounts, times, lines", Subject.ORDER),
    Comparison("coupon", "coupons: state, rule, order", Subject.COUPON),
    Comparison("reservation", "reservations: state, lines", Subject.RESERVATION),
    Comparison("campaign", "campaigns: rule, quantity, issued", Subject.CAMPAIGN),
    Comparison("issue", "issues: number, rule", Subject.ISSUE),
    SalesComparison(),
)
LAW_CHECKS: tuple[Check, ...] = tuple(LawCheck(law) for law in LAWS)
CHECKS: tuple[Check, ...] = (*COMPARISONS, *LAW_CHECKS)

_COSTLY = frozenset(law.slug for law in LAWS if law.costly)
_OF_PARTITIONS = tuple(check for check in CHECKS if check.subject is Subject.PARTITION)


class Auditor:
    """One audit over one connection, for one task. After a `DatabaseError` it is thrown away with its connection.

    A partition that is not trusted, or cannot be reached, counts as moving.
    """

    def __init__(self, engine: Engine, connection: Connection, limits: AuditLimits | None = None) -> None:
        self.engine = engine
        self.connection = connection
        self.limits = limits or AuditLimits()
        self.report = AuditReport({check.slug: Tally(check.title) for check in CHECKS})
        self.unread: set[int] = set()
        """Partitions that were not trusted, or out of reach, when they were to be read."""
        self._is_ready = False
        self._horizon: tuple[float, datetime] | None = None
        self._partitions = {engine.keys.prefix(number): number for number in range(engine.partitions.count)}

    # --- What is looked at ---

    async def everything(self) -> AsyncIterator[str]:
        """Audit all there is; yields what it turns to next, for a progress line."""
        for subject in SUBJECTS:
            yield f"{subject}s"
            async for entities in self._pages(subject):
                await self.examine(entities)
        for number in range(self.engine.partitions.count):
            yield f"partition {number}"
            await self.examine([_whole(number)])
        yield "keys of Redis"
        async for page_of_each in self._keys():
            for entities in page_of_each:
                await self.examine(await not_recorded(self.connection, entities))
            await asyncio.sleep(self.limits.pause_s)

    async def lately(self) -> AsyncIterator[str]:
        """Audit what has changed lately and a sample of the rest, and hold all of PostgreSQL to the laws.

        Each entity is looked at once by each check, so that counts are of entities and a mismatch is told once.
        """
        changed: set[Entity] = set()
        for number in range(self.engine.partitions.count):
            yield f"partition {number}"
            changed |= await self.recent(number, COMPARISONS)
        for subject in SUBJECTS:
            yield f"{subject}s"
            some = await sample(self.connection, subject, self.limits.page_rows)
            await self.examine([each for each in some if each not in changed], COMPARISONS)
            async for entities in self._pages(subject):
                await self.examine(entities, LAW_CHECKS)

    async def recent(self, partition: int, checks: Sequence[Check] = CHECKS) -> set[Entity]:
        """Audit by these checks what a partition's last events changed, which is returned; and the partition itself."""
        try:
            events = await self._last_events(partition)
        except EngineError:
            events = []
        changed = changed_by(events)
        for entities in changed.values():
            for some in parts(entities, self.limits.page_rows):
                await self.examine(some, checks)
        await self.examine([_whole(partition)], [check for check in _OF_PARTITIONS if check.slug not in _COSTLY])
        return {entity for entities in changed.values() for entity in entities}

    async def walk(self, subject: Subject, after: Mark | None, share: Iterable[int]) -> Mark | None:
        """Audit the next page of a table, as far as it is of this share; the mark to go on from."""
        entities, mark = await page(self.connection, subject, after, self.limits.page_rows, self._now_ms())
        mine = set(share)
        await self.examine([each for each in entities if each.partition in mine])
        return mark

    async def examine(self, entities: Sequence[Entity], checks: Iterable[Check] = CHECKS) -> list[Mismatch]:
        """Look at entities of one subject by every check of it, and again at what seems wrong; what stays so."""
        found: list[Mismatch] = []
        for check in checks:
            if entities and check.subject is entities[0].subject:
                outcome = await self._look(check, entities)
                if outcome.mismatches:
                    await self._confirm(check, outcome)
                self.report.tallies[check.slug].add(outcome)
                found += outcome.mismatches
        return found

    async def _confirm(self, check: Check, outcome: Outcome) -> None:
        await asyncio.sleep(self.limits.confirm_s)
        suspects = list({each.entity: None for each in outcome.mismatches})
        again = await self._look(check, suspects)
        outcome.compared = max(0, outcome.compared - again.moving - again.cold)
        outcome.moving += again.moving
        outcome.cold += again.cold
        outcome.mismatches = again.mismatches

    async def _look(self, check: Check, entities: Sequence[Entity]) -> Outcome:
        if not self._is_ready:
            with translated():
                await self.connection.execute(PLANNER)
            self._is_ready = True
        try:
            return await check.look(self, entities)
        except EngineError:
            return Outcome(moving=len(entities))

    # --- Where entities come from ---

    async def _pages(self, subject: Subject) -> AsyncIterator[list[Entity]]:
        mark: Mark | None = None
        until_ms = self._now_ms()
        while True:
            entities, mark = await page(self.connection, subject, mark, self.limits.page_rows, until_ms)
            if entities:
                yield entities
            if mark is None:
                return
            await asyncio.sleep(self.limits.pause_s)

    async def _last_events(self, partition: int) -> list[Event]:
        entries = await self._execute(
            partition, "XREVRANGE", self.engine.keys.events(partition), "+", "-", "COUNT", self.limits.recent_events
        )
        events = []
        for entry in entries:
            try:
                events.append(decode_event(partition, entry))
            except (ValueError, KeyError):
                continue  # what is no event, the writer stops at
        return events

    async def _keys(self) -> AsyncIterator[list[list[Entity]]]:
        """Every entity that has a key in Redis, some at a time, each list of one subject."""
        lanes = self.engine.lanes
        servers = {lanes.identity(number): number for number in range(self.engine.partitions.count)}
        for representative in servers.values():
            cursor = "0"
            while True:
                reply, keys = await self._execute(representative, "SCAN", cursor, "MATCH", "fc:{*", "COUNT", SCAN_COUNT)
                yield await self._entities_of(keys)
                cursor = reply.decode()
                if cursor == "0":
                    break

    async def _entities_of(self, keys: Sequence[bytes]) -> list[list[Entity]]:
        grouped: dict[Subject, list[Entity]] = {}
        holders: list[tuple[Subject, int, str, bytes]] = []
        for key in keys:
            prefix, _, rest = key.decode(errors="replace").partition("}:")
            kind, _, id = rest.partition(":")
            partition, subject = self._partitions.get(prefix + "}:"), _KIND_OF_KEY.get(kind)
            if partition is None or subject is None or not is_id(subject, id):
                continue
            if subject in {Subject.COUPON, Subject.ISSUE}:
                holders.append((subject, partition, id, key))
            else:
                owner = str(partition) if subject is Subject.RESERVATION else ""
                grouped.setdefault(subject, []).append(Entity(subject, partition, id, owner))
        names = await all_of(self._fields_of(partition, key) for _, partition, _, key in holders)
        for (subject, partition, id, _), found in zip(holders, names, strict=True):
            grouped.setdefault(subject, []).extend(Entity(subject, partition, name, id) for name in found)
        return list(grouped.values())

    async def _fields_of(self, partition: int, key: bytes) -> list[str]:
        """The ids that are fields of a hash; coupons' hashes also have an index by campaign."""
        found: dict[str, None] = {}
        cursor = "0"
        while True:
            reply, flat = await self._execute(partition, "HSCAN", key, cursor, "COUNT", SCAN_COUNT)
            found |= dict.fromkeys(name.decode() for name in flat[::2] if not name.startswith(b"campaign:"))
            cursor = reply.decode()
            if cursor == "0":
                return list(found)

    # --- What the checks read ---

    async def read_redis(
        self, subject: Subject, entities: Sequence[Entity]
    ) -> tuple[dict[int, dict[Entity, Image]], int]:
        """Redis' images by partition, and how many entities could not be read because theirs is not trusted now."""
        images: dict[int, dict[Entity, Image]] = {}
        by_partition: dict[int, list[Entity]] = {}
        for entity in entities:
            if entity.partition < self.engine.partitions.count:
                by_partition.setdefault(entity.partition, []).append(entity)
            else:
                images[entity.partition] = {}  # PostgreSQL says a partition that there is not: Redis has nothing of it
        answers = await answers_of(
            read_redis(self.engine, subject, partition, some) for partition, some in by_partition.items()
        )
        unread = 0
        for (partition, some), answer in zip(by_partition.items(), answers, strict=True):
            if isinstance(answer, EngineError):
                self.unread.add(partition)
                unread += len(some)
            else:
                images[partition] = answer
        return images, unread

    async def horizon(self) -> datetime:
        """The time before which everything is in PostgreSQL, in every partition, and has had its time to settle.

        Raises `EngineError` when a partition is not trusted now: then nothing can be said across partitions.
        """
        now = asyncio.get_running_loop().time()
        if self._horizon is None or now - self._horizon[0] > HORIZON_FOR_S:
            self._horizon = now, await self._look_for_horizon()
        return self._horizon[1]

    async def _look_for_horizon(self) -> datetime:
        numbers = range(self.engine.partitions.count)
        written_ms = min(self.engine.lanes.now_ms(number) for number in numbers)
        places = await asyncio.gather(*map(self._trusted_place, numbers))
        cursors = await self._cursors()
        for number, place in zip(numbers, places, strict=True):
            epoch, seq = cursors.get(number, NO_PLACE)
            if place > (epoch, seq):
                oldest_ms = await self.engine.recovery.oldest_event_after_ms(number, epoch, seq)
                # Where the stream has not kept what the cursor lacks, nobody knows how old that is.
                written_ms = min(written_ms, oldest_ms or 0)
        return datetime.fromtimestamp(written_ms / 1000, UTC) - timedelta(seconds=self.limits.age_s)

    def sales_days(self) -> list[date]:
        """The days whose counters are compared."""
        return self.engine.days.last(BEST_SELLER_DAYS, self.engine.lanes.now_ms(0))

    async def recorded_sales(self, partition: int, day: date) -> tuple[Place | None, Mapping[str, int]]:
        """How far a partition is written, and its units sold on a day by product, at that moment."""
        with translated():
            cursor = await self.connection.execute(
                """SELECT c.epoch, c.seq, d.product_id, d.quantity FROM partition_cursor c
                   LEFT JOIN daily_sale d ON d.day = %s AND d.partition = c.partition WHERE c.partition = %s""",
                (day, partition),
            )
            rows = await cursor.fetchall()
        place = (rows[0][0], rows[0][1]) if rows else None
        return place, {product: units for _, _, product, units in rows if product is not None}

    async def held_sales(self, partition: int, day: date) -> tuple[Place | None, Mapping[str, int]]:
        """The same of Redis; no place where it changed meanwhile."""
        keys = self.engine.keys
        before = await self._trusted_place(partition)
        ranked = await self._execute(partition, "ZRANGE", keys.sales(partition, f"{day:%Y%m%d}"), 0, -1, "WITHSCORES")
        after = await self._trusted_place(partition)
        units = {product.decode(): int(float(score)) for product, score in zip(ranked[::2], ranked[1::2], strict=True)}
        return (after if before == after else None), {product: sold for product, sold in units.items() if sold}

    async def _trusted_place(self, partition: int) -> Place:
        server = self.engine.lanes.identity(partition)
        meta = self.engine.keys.meta(partition)
        named, epoch, seq = await self._execute(partition, "HMGET", meta, "server", "epoch", "seq")
        if server is None or named != server or seq is None:
            raise EngineError(f"partition {partition} is not trusted")
        return int(epoch), int(seq)

    async def _cursors(self) -> dict[int, Place]:
        with translated():
            cursor = await self.connection.execute("SELECT partition, epoch, seq FROM partition_cursor")
            return {partition: (epoch, seq) for partition, epoch, seq in await cursor.fetchall()}

    def _now_ms(self) -> int:
        """Not before any change that a partition has made by now."""
        return max(self.engine.lanes.now_ms(number) for number in range(self.engine.partitions.count)) + 1_000

    def _execute(self, partition: int, *command: str | int | bytes) -> Awaitable[Any]:
        deadline = deadline_in(LANES_WITHIN_S)
        return self.engine.lanes.execute(partition, *command, deadline=deadline)


def _whole(partition: int) -> Entity:
    return Entity(Subject.PARTITION, partition, str(partition))
