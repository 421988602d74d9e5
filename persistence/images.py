"""What Redis and PostgreSQL say of an entity, in the same words, so that the two can be laid side by side."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

import orjson
from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from engine.engine import Engine
from engine.lanes import deadline_in
from engine.together import parts
from persistence.audited import SCOPES, Entity, Subject, scope_values
from persistence.database import translated

HASHES_MAX = 32
"""Hashes read by one call: Redis does nothing else meanwhile."""

Place = tuple[int, int]
"""Epoch and sequence of a change."""

ALWAYS_MOVING: Place = (2**63, 0)

READ_WITHIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Image:
    """One store's words for an entity. ``place`` is that of its last change; ``None`` where it never changes again.

    ``may_be_cold``: it is finished, so Redis may have let it go.
    """

    place: Place | None
    fields: Mapping[str, str]
    may_be_cold: bool = False


NO_PLACE: Place = (0, 0)


def place_of(text: str) -> Place:
    """From ``<epoch>-<seq>``; before every place where it is anything else."""
    epoch, _, seq = text.partition("-")
    return (int(epoch), int(seq)) if epoch.isdecimal() and seq.isdecimal() else NO_PLACE


@dataclass(frozen=True, slots=True)
class Recorded:
    """PostgreSQL's words for some entities, and how far it had followed their partitions, all at one moment."""

    cursors: Mapping[int, Place]
    images: Mapping[Entity, Image]


def recorded_statement(subject: Subject, entities: Sequence[Entity]) -> tuple[sql.Composed, dict[str, Any]]:
    """The query for these entities of one subject, and its values."""
    query, _ = _QUERIES[subject]
    return sql.SQL(query).format(scope=sql.SQL(SCOPES[subject])), scope_values(entities)


async def read_postgres(
    connection: AsyncConnection[TupleRow], subject: Subject, entities: Sequence[Entity]
) -> Recorded:
    """What PostgreSQL has of these entities of one subject. Raises `DatabaseError`."""
    statement, values = recorded_statement(subject, entities)
    _, names = _QUERIES[subject]
    with translated():
        async with connection.transaction():
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            cursors = await connection.execute(
                "SELECT partition, epoch, seq FROM partition_cursor WHERE partition = ANY(%s)",
                (list({each.partition for each in entities}),),
            )
            found = {partition: (epoch, seq) for partition, epoch, seq in await cursors.fetchall()}
            rows = await (await connection.execute(statement, values)).fetchall()
    images = {}
    for partition, id, owner, place, may_be_cold, *cells in rows:
        fields = _words(subject, dict(zip(names, map(_word, cells), strict=True)), cells)
        entity = Entity(subject, partition, id, owner)
        images[entity] = Image(place_of(place) if place else None, fields, may_be_cold)
    return Recorded(found, images)


def _word(cell: Any) -> str:
    """As Redis has it: nothing is empty, a time is in ms since 1970."""
    if isinstance(cell, datetime):
        return str(round(cell.timestamp() * 1000))
    return "" if cell is None else str(cell)


def _words(subject: Subject, words: dict[str, str], cells: Sequence[Any]) -> dict[str, str]:
    if subject is Subject.PRODUCT:
        items = cells[-1] or []
        del words["items"]
        words["stocks"] = ",".join(stock for stock, *_ in items)
        for stock, option, *units in items:
            words |= _stock_words(stock, option, *map(str, units))
    if subject is Subject.ORDER:
        words["lines"] = _lines(cells[-1] or [])
        if words["status"] == "void":
            return {"user": words["user"], "status": "void"}
    return words


def _stock_words(stock: str, option: str, available: str, reserved: str, sold: str) -> dict[str, str]:
    return {
        f"option of {stock}": option,
        f"available of {stock}": available,
        f"reserved of {stock}": reserved,
        f"sold of {stock}": sold,
    }


def _lines(lines: list[list[Any]]) -> str:
    return orjson.dumps(lines).decode()


_LINE = ("product_id", "stock_id", "name", "option", "unit_price", "quantity", "amount")

# partition, id, owner, place, whether it may be cold; then the fields that are named beside the query.
_QUERIES: dict[Subject, tuple[LiteralString, tuple[str, ...]]] = {
    Subject.WALLET: (
        """SELECT w.partition, w.user_id, '', w.place, FALSE, w.balance, w.coupon_number,
                  (SELECT o.order_id FROM orders o
                   WHERE o.user_id = w.user_id AND o.status = 'awaiting_payment' ORDER BY o.ordered_at DESC LIMIT 1)
           FROM wallet w WHERE {scope}""",
        ("balance", "coupon number", "open order"),
    ),
    Subject.PRODUCT: (
        """SELECT p.partition, p.product_id, '', p.place, FALSE, p.name, p.price,
                  (SELECT json_agg(json_build_array(s.stock_id, s.option, s.available, s.reserved, s.sold)
                                   ORDER BY s.added_seq, s.added_index)
                   FROM stock_item s WHERE s.product_id = p.product_id)
           FROM product p WHERE {scope}""",
        ("name", "price", "items"),
    ),
    Subject.ORDER: (
        """SELECT o.partition, o.order_id::text, '', o.place, o.status <> 'awaiting_payment', o.user_id, o.status,
                   o.failure, o.subtotal, o.discount, o.total, o.coupon_id, o.ordered_at,
                   o.pay_before, o.paid_at,
                   (SELECT json_agg(json_build_array(l.product_id, l.stock_id, l.name, l.option, l.unit_price,
                                                     l.quantity, l.amount) ORDER BY l.line_no)
                    FROM order_line l WHERE l.order_id = o.order_id)
            FROM orders o WHERE {scope}""",
        (
            "user", "status", "failure", "subtotal", "discount", "total", "coupon", "ordered at", "pay before",
            "paid at", "lines",
        ),
    ),
    Subject.COUPON: (
        """SELECT partition, coupon_id, user_id, place, state = 'used' OR valid_until < now(), state, campaign_id,
                   issue_number, kind, value, minimum_order, maximum_discount, issued_at, valid_from,
                   valid_until, order_id, used_at, coupon_id
            FROM coupon WHERE {scope}""",
        (
            "state", "campaign", "number", "kind", "value", "minimum order", "maximum discount", "issued at",
            "valid from", "valid until", "order", "used at", "coupon of the campaign",
        ),
    ),
    Subject.RESERVATION: (
        """SELECT partition, order_id::text, partition::text, place, state <> 'held', user_id, state, lines,
                   at, finished_at
            FROM reservation WHERE {scope}""",
        ("user", "state", "lines", "at", "finished at"),
    ),
    Subject.CAMPAIGN: (
        """SELECT c.partition, c.campaign_id, '', c.place, FALSE, c.name, c.kind, c.value, c.minimum_order,
                   c.maximum_discount, c.quantity, c.issued, c.opens_at, c.closes_at, c.valid_days,
                   (SELECT count(*) FROM coupon_issue i WHERE i.campaign_id = c.campaign_id)
            FROM campaign c WHERE {scope}""",
        (
            "name", "kind", "value", "minimum order", "maximum discount", "quantity", "issued", "opens at", "closes at",
            "valid days", "issues",
        ),
    ),
    Subject.ISSUE: (
        """SELECT partition, user_id, campaign_id, '', FALSE, number, issued_at, kind, value, minimum_order,
                   maximum_discount, valid_days
            FROM coupon_issue WHERE {scope}""",
        ("number", "issued at", "kind", "value", "minimum order", "maximum discount", "valid days"),
    ),
}  # fmt: skip


# --- Redis ---

_Hash = dict[str, str]


async def read_redis(
    engine: Engine, subject: Subject, partition: int, entities: Sequence[Entity]
) -> dict[Entity, Image]:
    """What Redis has of these entities of one partition; raises `EngineError` where the partition is not trusted."""
    read = _READERS[subject]
    found: dict[Entity, Image] = {}
    for some in parts(entities, HASHES_MAX):
        found |= await read(engine, partition, some)
    return found


async def _hashes(engine: Engine, partition: int, keys: Sequence[str]) -> list[_Hash]:
    """These hashes at one moment, from a trusted partition."""
    runner, meta = engine.runner, engine.keys.meta(partition)
    flat = await runner.alone(lambda flow: runner.read(flow, partition, "read_hashes", (meta, *keys)))
    return [_dict(each) for each in flat]


def _dict(flat: Sequence[bytes]) -> _Hash:
    texts = [item.decode(errors="backslashreplace") for item in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _named(found: _Hash, names: Mapping[str, str], default: str = "") -> dict[str, str]:
    return {ours: found.get(theirs, default) for ours, theirs in names.items()}


def _reader(
    key: Callable[[Engine, int, str], str], words: Callable[[_Hash], dict[str, str]]
) -> Callable[[Engine, int, Sequence[Entity]], Awaitable[dict[Entity, Image]]]:
    """A reader of entities that have a hash each."""

    async def read(engine: Engine, partition: int, entities: Sequence[Entity]) -> dict[Entity, Image]:
        hashes = await _hashes(engine, partition, [key(engine, partition, each.id) for each in entities])
        return {
            entity: Image(place_of(found.get("seq", "")), words(found))
            for entity, found in zip(entities, hashes, strict=True)
            if found
        }

    return read


def _wallet_words(found: _Hash) -> dict[str, str]:
    numbers = _named(found, {"balance": "balance", "coupon number": "coupon_number"}, "0")
    return numbers | {"open order": found.get("open_order", "")}


def _product_words(found: _Hash) -> dict[str, str]:
    words = _named(found, {"name": "name", "price": "price", "stocks": "stocks"})
    for stock in filter(None, words["stocks"].split(",")):
        words |= _stock_words(stock, *(found.get(f"{kind}:{stock}", "") for kind in "oars"))
    return words


_ORDER = {
    "user": "user", "status": "status", "failure": "failure", "subtotal": "subtotal", "discount": "discount",
    "total": "total", "coupon": "coupon", "ordered at": "ordered_at", "pay before": "pay_before", "paid at": "paid_at",
}  # fmt: skip


def _order_words(found: _Hash) -> dict[str, str]:
    if found.get("status") == "void":
        return _named(found, {"user": "user", "status": "status"})
    words = _named(found, _ORDER)
    try:
        words["lines"] = _lines([[line[name] for name in _LINE] for line in orjson.loads(found.get("lines", ""))])
    except (ValueError, TypeError, LookupError):
        words["lines"] = found.get("lines", "")
    return words


_RESERVATION = {"user": "user", "state": "state", "lines": "lines", "at": "at", "finished at": "finished_at"}
_CAMPAIGN = {
    "name": "name", "kind": "kind", "value": "value", "minimum order": "minimum_order",
    "maximum discount": "maximum_discount", "quantity": "quantity", "issued": "issued", "opens at": "opens_at",
    "closes at": "closes_at", "valid days": "valid_days",
}  # fmt: skip
_COUPON = (
    "state", "campaign", "number", "kind", "value", "minimum order", "maximum discount", "issued at", "valid from",
    "valid until", "order", "used at",
)  # fmt: skip
_ISSUE = ("number", "issued at", "kind", "value", "minimum order", "maximum discount", "valid days")


async def _read_coupons(engine: Engine, partition: int, entities: Sequence[Entity]) -> dict[Entity, Image]:
    """A user's coupons stand in one hash, packed, with the place of the last change at the end."""
    users = list(dict.fromkeys(each.owner for each in entities))
    hashes = await _hashes(engine, partition, [engine.keys.coupons(partition, user) for user in users])
    of_user = dict(zip(users, hashes, strict=True))
    images = {}
    for entity in entities:
        packed = of_user[entity.owner].get(entity.id)
        if packed is not None:
            *cells, place = packed.split(",")
            words = dict(zip(_COUPON, cells, strict=False))
            words["coupon of the campaign"] = of_user[entity.owner].get(f"campaign:{words.get('campaign')}", "")
            images[entity] = Image(place_of(place), words)
    return images


async def _read_campaigns(engine: Engine, partition: int, entities: Sequence[Entity]) -> dict[Entity, Image]:
    """With each the number of its issues, which counts where nothing was issued while it was taken."""
    images = {}
    for entity in entities:
        key = engine.keys.campaign(partition, entity.id)
        (before,) = await _hashes(engine, partition, [key])
        count = await engine.lanes.execute(
            partition, "HLEN", engine.keys.issues(partition, entity.id), deadline=deadline_in(READ_WITHIN_S)
        )
        (found,) = await _hashes(engine, partition, [key])
        if found:
            place = place_of(found.get("seq", "")) if found.get("seq") == before.get("seq") else ALWAYS_MOVING
            images[entity] = Image(place, _named(found, _CAMPAIGN) | {"issues": str(count)})
    return images


async def _read_issues(engine: Engine, partition: int, entities: Sequence[Entity]) -> dict[Entity, Image]:
    """An issue never changes; the place is that of its campaign's last change, so not before its own."""
    runner, keys = engine.runner, engine.keys
    images = {}
    for campaign in dict.fromkeys(each.owner for each in entities):
        wanted = [each for each in entities if each.owner == campaign]
        read_keys = (keys.meta(partition), keys.issues(partition, campaign))
        users = [each.id for each in wanted]
        values = await runner.alone(
            lambda flow, keys=read_keys, users=users: runner.read(flow, partition, "read_fields", keys, users)  # type: ignore[misc]
        )
        (found,) = await _hashes(engine, partition, [keys.campaign(partition, campaign)])
        for entity, packed in zip(wanted, values, strict=True):
            if packed is not None:
                words = dict(zip(_ISSUE, packed.decode().split(","), strict=False))
                images[entity] = Image(place_of(found.get("seq", "")), words)
    return images


_READERS: dict[Subject, Callable[[Engine, int, Sequence[Entity]], Awaitable[dict[Entity, Image]]]] = {
    Subject.WALLET: _reader(lambda engine, partition, id: engine.keys.wallet(partition, id), _wallet_words),
    Subject.PRODUCT: _reader(lambda engine, partition, id: engine.keys.product(partition, id), _product_words),
    Subject.ORDER: _reader(lambda engine, partition, id: engine.keys.order(partition, id), _order_words),
    Subject.RESERVATION: _reader(
        lambda engine, partition, id: engine.keys.reservation(partition, id),
        lambda found: _named(found, _RESERVATION),
    ),
    Subject.COUPON: _read_coupons,
    Subject.CAMPAIGN: _read_campaigns,
    Subject.ISSUE: _read_issues,
}
