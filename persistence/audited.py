"""What an audit looks at: entities of several kinds, and the ways to come by some of them.

Ids come from a table in its order (everything, page by page), from a table by chance (a sample), or from the events
that a partition's stream still holds (what has changed lately).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, LiteralString

from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from engine.events import Event
from engine.order_ids import is_order_id, lowest_order_id
from engine.packed_lines import products_of
from persistence.database import translated

Connection = AsyncConnection[TupleRow]


class Subject(StrEnum):
    """A kind of entity; the value is how a report names one."""

    WALLET = "wallet"
    PRODUCT = "product"
    ORDER = "order"
    COUPON = "coupon"
    RESERVATION = "reservation"
    CAMPAIGN = "campaign"
    ISSUE = "issue"
    PARTITION = "partition"


@dataclass(frozen=True, slots=True)
class Entity:
    """One entity: its partition, its id, and what the id stands in: a coupon's user, an issue's campaign (the id is
    then the user), a reservation's partition (the id is then the order)."""

    subject: Subject
    partition: int
    id: str
    owner: str = ""

    @property
    def name(self) -> str:
        """The entity for people, unique among those of its partition."""
        return f"{self.owner}:{self.id}" if self.owner else self.id


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a subject's ids stand: a table, and as SQL what to select, what a page follows the last one by (unique
    together and indexed), and how a row `t` is that of an entity `e`."""

    table: LiteralString
    id: LiteralString
    owner: LiteralString
    order: LiteralString
    same: LiteralString

    @property
    def parts(self) -> dict[str, sql.SQL]:
        """As parts of a query."""
        return {name: sql.SQL(getattr(self, name)) for name in ("table", "id", "owner", "order")}


_SOURCES = {
    Subject.WALLET: _Source("wallet", "user_id", "''", "user_id", "t.user_id = e.id"),
    Subject.PRODUCT: _Source("product", "product_id", "''", "product_id", "t.product_id = e.id"),
    Subject.ORDER: _Source("orders", "order_id::text", "''", "order_id", "t.order_id = e.id::uuid"),
    Subject.COUPON: _Source("coupon", "coupon_id", "user_id", "coupon_id", "t.coupon_id = e.id"),
    Subject.RESERVATION: _Source(
        "reservation", "order_id::text", "partition::text", "order_id, partition", "t.order_id = e.id::uuid"
    ),
    Subject.CAMPAIGN: _Source("campaign", "campaign_id", "''", "campaign_id", "t.campaign_id = e.id"),
    Subject.ISSUE: _Source(
        "coupon_issue", "user_id", "campaign_id", "campaign_id, number", "(t.campaign_id, t.user_id) = (e.owner, e.id)"
    ),
}

SCOPES: dict[Subject, LiteralString] = {
    Subject.WALLET: "user_id = ANY(%(ids)s)",
    Subject.PRODUCT: "product_id = ANY(%(ids)s)",
    Subject.ORDER: "order_id = ANY(%(ids)s::uuid[])",
    Subject.COUPON: "coupon_id = ANY(%(ids)s)",
    Subject.RESERVATION: "order_id = ANY(%(ids)s::uuid[]) AND partition = ANY(%(owners)s::smallint[])",
    Subject.CAMPAIGN: "campaign_id = ANY(%(ids)s)",
    Subject.ISSUE: """campaign_id = ANY(%(owners)s) AND user_id = ANY(%(ids)s)
                      AND (campaign_id || ':' || user_id) = ANY(%(names)s)""",
    Subject.PARTITION: "partition = ANY(%(partitions)s)",
}
"""How a query on one table is narrowed to some entities: ``{scope}`` in it. Where an id has two columns, each by itself
finds rows by index, whatever the planner believes of how many there are; joined with the pairs, it has held all
reservations there were, one by one, against each pair. An order has few partitions, so some more rows come than are
asked for; a user may have a coupon of every campaign, so of the issues found those are chosen that are asked for."""


def scope_values(entities: Sequence[Entity]) -> dict[str, Any]:
    """The values of a scope's query for these entities of one subject."""
    return {
        "ids": [each.id for each in entities],
        "owners": [each.owner for each in entities],
        "names": [each.name for each in entities],
        "partitions": [each.partition for each in entities],
    }


SUBJECTS = tuple(_SOURCES)
"""The subjects that are rows of a table."""

Mark = tuple[Any, ...]


def is_id(subject: Subject, id: str) -> bool:
    """Whether an entity of this subject can have the id: PostgreSQL cannot even be asked for other orders."""
    return is_order_id(id) if _is_of_order(subject) else bool(id)


def _is_of_order(subject: Subject) -> bool:
    return subject in {Subject.ORDER, Subject.RESERVATION}


async def page(
    connection: Connection, subject: Subject, after: Mark | None, count_max: int, until_ms: int
) -> tuple[list[Entity], Mark | None]:
    """The next entities of the table in its order, and the mark to go on from; ``None`` when this was the last page.

    Orders that were begun after ``until_ms`` are left out, with their reservations: they are in order of time, and
    traffic would be ahead for ever.
    """
    source = _SOURCES[subject]
    marks = sql.SQL(", ").join([sql.Placeholder()] * len(after or ()))
    following = sql.SQL("({order}) > ({marks})").format(order=sql.SQL(source.order), marks=marks)
    query = sql.SQL(
        """SELECT partition, {id} AS id, {owner} AS owner, {order} FROM {table}
           WHERE {following} AND {begun} ORDER BY {order} LIMIT %s"""
    ).format(
        **source.parts,
        following=following if after else sql.SQL("TRUE"),
        begun=sql.SQL("order_id < %s::uuid") if _is_of_order(subject) else sql.SQL("%s::text IS NOT NULL"),
    )
    rows = await _fetch(connection, query, (*(after or ()), lowest_order_id(until_ms), count_max))
    entities = [Entity(subject, partition, id, owner) for partition, id, owner, *_ in rows]
    return entities, tuple(rows[-1][3:]) if len(rows) == count_max else None


async def sample(connection: Connection, subject: Subject, count_max: int) -> list[Entity]:
    """Entities from some blocks of the table, chosen by chance; of a small table those that come first."""
    source = _SOURCES[subject]
    counted = await _fetch(
        connection, sql.SQL("SELECT reltuples FROM pg_class WHERE oid = %s::regclass"), [source.table]
    )
    percent = min(100.0, 200.0 * count_max / max(counted[0][0], 1))
    query = sql.SQL("SELECT partition, {id}, {owner} FROM {table} TABLESAMPLE SYSTEM (%s) LIMIT %s")
    rows = await _fetch(connection, query.format(**source.parts), (percent, count_max))
    return [Entity(subject, *row) for row in rows]


async def not_recorded(connection: Connection, entities: Sequence[Entity]) -> list[Entity]:
    """Those of one subject that have no row."""
    if not entities:
        return []
    source = _SOURCES[entities[0].subject]
    query = sql.SQL(
        """SELECT e.partition, e.id, e.owner
           FROM unnest(%s::smallint[], %s::text[], %s::text[]) AS e (partition, id, owner)
           WHERE NOT EXISTS (SELECT FROM {table} t WHERE t.partition = e.partition AND {same})"""
    ).format(table=source.parts["table"], same=sql.SQL(source.same))
    rows = await _fetch(
        connection,
        query,
        ([each.partition for each in entities], [each.id for each in entities], [each.owner for each in entities]),
    )
    return [Entity(entities[0].subject, *row) for row in rows]


def changed_by(events: Iterable[Event]) -> dict[Subject, list[Entity]]:
    """The entities that these events changed, each once."""
    found: dict[Entity, None] = {}
    for event in events:
        for entity in _changed_by_one(event):
            found[entity] = None
    grouped: dict[Subject, list[Entity]] = {}
    for entity in found:
        grouped.setdefault(entity.subject, []).append(entity)
    return grouped


def _changed_by_one(event: Event) -> list[Entity]:
    fields, partition = event.fields, event.partition
    family = event.type.partition(".")[0]
    found = []

    def add(subject: Subject, id: str, owner: str = "") -> None:
        if is_id(subject, id):
            found.append(Entity(subject, partition, id, owner))

    if family in {"wallet", "order"} or event.type == "coupon.granted":
        user = fields.get("user", "")
        add(Subject.WALLET, "" if event.type == "order.voided" else user)
        add(Subject.ORDER, fields.get("order", ""))
        add(Subject.COUPON, fields.get("coupon", ""), user)
    elif family == "product" or event.type == "stock.adjusted":
        add(Subject.PRODUCT, fields.get("product", ""))
    elif family == "stock":
        # A confirm names several orders, every other change of stock one.
        for order in fields.get("orders", fields.get("order", "")).split(","):
            add(Subject.RESERVATION, order, str(partition))
        for product in products_of(fields.get("lines", "")):
            add(Subject.PRODUCT, product)
    elif family in {"campaign", "coupon"}:
        add(Subject.CAMPAIGN, fields.get("campaign", ""))
        add(Subject.ISSUE, fields.get("user", ""), fields.get("campaign", ""))
    return found


async def _fetch(connection: Connection, query: sql.SQL | sql.Composed, values: Sequence[Any]) -> list[TupleRow]:
    with translated():
        return await (await connection.execute(query, values)).fetchall()
