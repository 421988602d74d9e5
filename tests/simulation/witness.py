"""The witness: puts every executed script to the model, and compares the answer, the event and what the keys hold.

It also follows PostgreSQL: a second model of each partition, which has had exactly the events that were committed, must
be what the tables say after every commit.
"""

import itertools
from collections.abc import Iterable
from typing import Any, LiteralString

import orjson
import psycopg
import redis
from psycopg.rows import TupleRow

from engine.events import SEPARATOR
from tests.simulation.laws import broken_between, broken_within
from tests.simulation.model import Model, Order, packed
from tests.simulation.network import Executed, Network, Server
from tests.simulation.virtual_time import BASE_MS

Place = tuple[int, int]
"""Epoch and sequence."""

WALKS = ("reservations", "coupons")
LEGAL_ALARMS = {"partition_untrusted", "stock_short"}


class Violation(AssertionError):
    """The shop did what it must not; the message says what, where and when."""


class Witness:
    """Follows all partitions, from their first call on."""

    def __init__(self, network: Network, session: psycopg.Connection[TupleRow]) -> None:
        self._network = network
        self._session = session
        count = len(network.servers)
        self.live = [Model() for _ in range(count)]
        self.durable = [Model() for _ in range(count)]
        self._written: list[Place] = [(1, 0)] * count
        self._events: list[dict[Place, Executed]] = [{} for _ in range(count)]
        self._cuts: dict[Executed, Model] = {}
        self.has_lost = False
        self.trace: list[str] = []

    # ---- Redis -------------------------------------------------------------------------------------------------------

    def executed(self, server: Server, executed: Executed, reply: Any, contents: list[Any]) -> None:
        """A changing script ran on a server, answered, and left its keys like this."""
        number = server.partition
        model = self.live[number]
        self.trace.append(f"{executed.at_ms} {number} {executed.name} {_brief(executed.arguments)} -> {_brief(reply)}")
        if isinstance(reply, redis.ResponseError):
            raise self._violation(server, executed, f"an error was answered: {reply}")
        expected = self._predict(server, executed)
        if _readable(reply, expected) != expected:
            raise self._violation(
                server, executed, f"answered {_readable(reply, expected)}, where {expected} was right"
            )
        if executed.name not in {"begin_load", "clear_keys", "load_keys"}:
            self._compare(server, executed, contents)
        if executed.name == "mark_durable" and int(model.meta.get("durable", 0)) > self._written[number][1]:
            raise self._violation(server, executed, f"{model.meta['durable']} is not in PostgreSQL")
        for place, event in model.events:
            self._remember(server, executed.alone(event), place)
        if executed.name == "finish_load" and expected[0] == "held":
            self.compare_all(server)
        if "server" in model.meta and executed.name != "mark_durable" and not executed.name.startswith("evict_"):
            self._check_laws(server, executed)

    def _predict(self, server: Server, executed: Executed) -> list[Any]:
        number = server.partition
        model = self.live[number]
        was_loading = "loading" in model.meta
        reply = model.call(executed.name, executed.arguments, executed.at_ms)
        if was_loading and executed.name == "finish_load" and reply[0] == "held":
            # What was loaded is what PostgreSQL had when it was fenced, and that has not changed since.
            cut = self._cuts.setdefault(executed, Model())
            cut.take_state_of(self.durable[number])
            cut.cold = self._cold(server)
            model.take_state_of(cut)
        return reply

    def _cold(self, server: Server) -> dict[str, str]:
        """What a rebuild says of what it has left out, which is nothing: all of a simulation is hot by its measure."""
        cold = _flat(self._network.contents([f"{server.prefix}cold"])[0])
        if int(cold["before"]) >= BASE_MS or any(int(cold[walk].partition(":")[0]) >= BASE_MS for walk in WALKS):
            raise Violation(f"partition {server.partition}: a rebuild has left out {cold}")
        return cold

    def _compare(self, server: Server, executed: Executed, contents: list[Any]) -> None:
        model = self.live[server.partition]
        for name, content in zip(executed.keys, contents, strict=True):
            key = name.removeprefix(server.prefix)
            if key == "events":
                if model.events:
                    self._compare_events(server, executed, content)
            elif "loading" not in model.meta and _canonical(key, _flat(content)) != _canonical(key, model.key(key)):
                raise self._violation(server, executed, f"{key} is {_flat(content)}, where {model.key(key)} was right")

    def _compare_events(self, server: Server, executed: Executed, content: list[Any]) -> None:
        expected = self.live[server.partition].events
        found = [(place.decode(), _event(flat)) for place, flat in content[: len(expected)]][::-1]
        if found != expected:
            raise self._violation(server, executed, f"the events are {found}, where {expected} were right")

    def _remember(self, server: Server, executed: Executed, place: str) -> None:
        epoch, seq = map(int, place.split("-"))
        earlier = self._events[server.partition].setdefault((epoch, seq), executed)
        if earlier is not executed and (epoch, seq) <= self._written[server.partition]:
            raise self._violation(server, executed, f"{place} is durable as {earlier.name}, and is used again")
        self._events[server.partition][epoch, seq] = executed

    def lost(self, server: Server) -> None:
        """The server has lost the end of its file."""
        self.has_lost = True
        model = self.live[server.partition] = Model()
        for executed in server.file:
            was_loading = "loading" in model.meta
            reply = model.call(executed.name, executed.arguments, executed.at_ms)
            if was_loading and executed.name == "finish_load" and reply[0] == "held":
                model.take_state_of(self._cuts[executed])
        if "loading" not in model.meta:
            self.compare_all(server)

    def compare_all(self, server: Server) -> None:
        """Every key of the partition, and no other, is there as the model has it."""
        names = [name for name in self._network.names(server) if not name.endswith(":events")]
        found = {
            name.removeprefix(server.prefix): _flat(content)
            for name, content in zip(names, self._network.contents(names), strict=True)
        }
        expected = self.live[server.partition].keys()
        for key in sorted({*found, *expected}):
            mine, right = _canonical(key, found.get(key, {})), _canonical(key, expected.get(key, {}))
            if mine != right:
                raise Violation(f"partition {server.partition}: {key} is {mine}, where {right} was right")

    # ---- laws --------------------------------------------------------------------------------------------------------

    def is_trusted(self, number: int) -> bool:
        """Whether flows run there now."""
        return self.live[number].meta.get("server") == self._network.servers[number].identity.decode()

    def _check_laws(self, server: Server, executed: Executed) -> None:
        trusted = {number: model for number, model in enumerate(self.live) if self.is_trusted(number)}
        broken = [*broken_within(self.live[server.partition], self.has_lost)]
        broken += broken_between(trusted, executed.arguments.get("order"))
        if broken:
            raise self._violation(server, executed, "; ".join(broken[:3]))

    # ---- PostgreSQL --------------------------------------------------------------------------------------------------

    def committed(self) -> None:
        """Something was committed: PostgreSQL must be where its cursors say, in all tables."""
        cursors = self._session.execute("SELECT partition, epoch, seq FROM partition_cursor", prepare=True).fetchall()
        moved = []
        for number, epoch, seq in cursors:
            if seq < self._written[number][1]:
                raise Violation(f"PostgreSQL's partition {number} went back from {self._written[number]} to {seq}")
            if seq > self._written[number][1]:
                self._follow(number, epoch, seq)
                moved.append(number)
            self._written[number] = (epoch, seq)
        if moved:
            self._compare_tables(moved)

    def is_written(self) -> bool:
        """Whether PostgreSQL has all that Redis has, and Redis knows it."""
        return all(
            "server" not in model.meta or model.meta["seq"] == model.meta["durable"] == str(written[1])
            for model, written in zip(self.live, self._written, strict=True)
        )

    def is_settled(self) -> bool:
        """Whether all partitions are trusted, of one generation."""
        generations = {model.meta.get("generation") for model in self.live}
        return len(generations) == 1 and all(map(self.is_trusted, range(len(self.live))))

    def behind(self) -> list[str]:
        """Partitions that are not trusted, or of which PostgreSQL has not everything; in words."""
        return [
            f"partition {number} is at {model.meta}, PostgreSQL at {written}"
            for number, (model, written) in enumerate(zip(self.live, self._written, strict=True))
            if not self.is_trusted(number) or (int(model.meta["epoch"]), model.seq) != written
        ]

    def _follow(self, number: int, epoch: int, last: int) -> None:
        durable = self.durable[number]
        for seq in range(self._written[number][1] + 1, last + 1):
            executed = self._events[number].get((epoch, seq))
            if executed is None:
                raise Violation(f"PostgreSQL has {epoch}-{seq} of partition {number}, which never happened")
            a = executed.arguments
            durable.meta = {
                "server": a["server"], "generation": a["generation"], "epoch": str(epoch), "seq": str(seq - 1),
                "durable": str(seq - 1),
            }  # fmt: skip
            durable.call(executed.name, a, executed.at_ms)
            if [place for place, _ in durable.events] != [f"{epoch}-{seq}"]:
                raise Violation(f"{executed.name} at {epoch}-{seq} of partition {number} has another effect alone")

    def _compare_tables(self, numbers: list[int]) -> None:
        found: dict[int, list[Any]] = {number: [] for number in numbers}
        for number, row in self._session.execute(_ROWS, {"partitions": numbers}, prepare=True):
            found[number].append(orjson.loads(row))
        for number in numbers:
            mine = sorted(map(str, found[number]))
            right = sorted(str([*row]) for row in _rows(self.durable[number], number))
            if mine != right:
                extra, missing = sorted({*mine} - {*right}), sorted({*right} - {*mine})
                raise Violation(
                    f"PostgreSQL at {self._written[number]} of partition {number} has {extra[:4]}, and lacks"
                    f" {missing[:4]}"
                )

    def check_alarms(self) -> None:
        """No alarm but those that a loss of Redis may raise."""
        alarms = self._session.execute("SELECT kind, partition, subject, detail FROM alarm").fetchall()
        illegal = [row for row in alarms if not self.has_lost or row[0] not in LEGAL_ALARMS]
        if illegal:
            raise Violation(f"alarms: {illegal[:3]}")

    def _violation(self, server: Server, executed: Executed, what: str) -> Violation:
        return Violation(f"partition {server.partition}, {executed.name} at {executed.at_ms}: {what}")


_DEFAULTS = {"user": {"balance": "0", "coupon_number": "0"}}


def _canonical(key: str, content: dict[str, str]) -> dict[str, Any]:
    """Without what may be there or not: zeros of a wallet, the spaces of JSON."""
    if not content:
        return {}
    kind = key.partition(":")[0]
    found: dict[str, Any] = {**_DEFAULTS.get(kind, {}), **content}
    if kind == "order" and "lines" in found:
        found["lines"] = orjson.loads(found["lines"])
    if kind in {"products", "campaigns", "sales"}:
        found = {name: int(float(value)) for name, value in found.items()}
    return found


def _event(flat: list[bytes]) -> dict[str, str]:
    """Its head, and what stands in its data."""
    *head, name, data = flat
    assert name == b"data"
    return {**_flat(head), **_flat(data.split(SEPARATOR.encode()))}


def _flat(content: list[bytes]) -> dict[str, str]:
    texts = [each.decode() for each in content]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _readable(reply: Any, expected: Any) -> Any:
    """A reply as text; a hash where one is expected."""
    if isinstance(reply, bytes):
        return reply.decode()
    if isinstance(expected, dict):
        return _flat(reply)
    if isinstance(reply, list):
        pairs = itertools.zip_longest(reply, expected if isinstance(expected, list) else [])
        return [_readable(mine, right) for mine, right in pairs][: len(reply)]
    return reply


def _brief(value: Any) -> str:
    if isinstance(value, dict):
        hidden = {"server", "now_ms", "backlog_max", "content", "key", "fingerprint"}
        return " ".join(f"{name}={_brief(each)}" for name, each in value.items() if name not in hidden and each)
    return str(value)[:160]


# ---- rows ------------------------------------------------------------------------------------------------------------

_ROWS: LiteralString = """
SELECT partition, json_build_array('wallet', user_id, balance, coupon_number, place)::text
  FROM wallet WHERE partition = ANY(%(partitions)s)
UNION ALL SELECT partition, json_build_array('ledger', seq, user_id, kind, amount, balance,
                                             coalesce(order_id::text, ''))::text
  FROM ledger_entry WHERE partition = ANY(%(partitions)s)
UNION ALL SELECT partition, json_build_array('product', product_id, name, price, place)::text
  FROM product WHERE partition = ANY(%(partitions)s)
UNION ALL SELECT partition, json_build_array('stock', product_id, stock_id, option, received, available, reserved, sold,
                                             added_seq, added_index)::text
  FROM stock_item WHERE partition = ANY(%(partitions)s)
UNION ALL SELECT partition, json_build_array('adjusted', seq, product_id, stock_id, delta, available, reason,
                                             (extract(epoch FROM at) * 1000)::bigint)::text
  FROM stock_adjustment WHERE partition = ANY(%(partitions)s)
UNION ALL SELECT partition, json_build_array('reservation', order_id, user_id, state, lines,
                                             (extract(epoch FROM at) * 1000)::bigint,
                                             (extract(epoch FROM finished_at) * 1000)::bigint, place)::text
  FROM reservation WHERE partition = ANY(%(partitions)s)
UNION ALL SELECT partition, json_build_array('order', order_id, user_id, status, coalesce(failure, ''), subtotal,
                                             discount, total, coalesce(coupon_id, ''),
                                             (extract(epoch FROM ordered_at) * 1000)::bigint,
                                             (extract(epoch FROM pay_before) * 1000)::bigint,
                                             (extract(epoch FROM paid_at) * 1000)::bigint,
                                             (extract(epoch FROM finished_at) * 1000)::bigint, place)::text
  FROM orders WHERE partition = ANY(%(partitions)s)
UNION ALL SELECT partition, json_build_array('line', order_id, line_no, product_id, stock_id, name, option, unit_price,
                                             quantity, amount)::text
  FROM order_line WHERE partition = ANY(%(partitions)s)
UNION ALL SELECT partition, json_build_array('discount', order_id, coupon_id, user_id, campaign_id, issue_number, kind,
                                             value, minimum_order, maximum_discount, amount, state,
                                             (extract(epoch FROM at) * 1000)::bigint)::text
  FROM discount WHERE partition = ANY(%(partitions)s)
UNION ALL SELECT partition, json_build_array('campaign', campaign_id, name, kind, value, minimum_order,
                                             maximum_discount, quantity, issued,
                                             (extract(epoch FROM opens_at) * 1000)::bigint,
                                             (extract(epoch FROM closes_at) * 1000)::bigint, valid_days, place)::text
  FROM campaign WHERE partition = ANY(%(partitions)s)
UNION ALL SELECT partition, json_build_array('issue', campaign_id, user_id, number, kind, value, minimum_order,
                                             maximum_discount, valid_days,
                                             (extract(epoch FROM issued_at) * 1000)::bigint)::text
  FROM coupon_issue WHERE partition = ANY(%(partitions)s)
UNION ALL SELECT partition, json_build_array('coupon', coupon_id, user_id, campaign_id, issue_number, kind, value,
                                             minimum_order, maximum_discount, state, coalesce(order_id::text, ''),
                                             (extract(epoch FROM issued_at) * 1000)::bigint,
                                             (extract(epoch FROM valid_from) * 1000)::bigint,
                                             (extract(epoch FROM valid_until) * 1000)::bigint,
                                             (extract(epoch FROM used_at) * 1000)::bigint, place)::text
  FROM coupon WHERE partition = ANY(%(partitions)s)
UNION ALL SELECT partition, json_build_array('sale', to_char(day, 'YYYYMMDD'), product_id, quantity)::text
  FROM daily_sale WHERE partition = ANY(%(partitions)s)
UNION ALL SELECT partition, json_build_array('outbox', order_id, user_id, event_id)::text
  FROM outbox WHERE partition = ANY(%(partitions)s)
"""


def _rows(model: Model, number: int) -> Iterable[tuple[Any, ...]]:
    """The rows that PostgreSQL must have of a partition."""
    for user, wallet in model.wallets.items():
        yield "wallet", user, wallet.balance, wallet.coupon_number, wallet.place
        for seq, kind, amount, balance, order in wallet.ledger:
            yield "ledger", seq, user, kind, amount, balance, order
    for product_id, product in model.products.items():
        yield "product", product_id, product.name, product.price, product.place
        for stock, item in product.stock.items():
            units = (item.received, item.available, item.reserved, item.sold)
            yield "stock", product_id, stock, item.option, *units, item.added_seq, item.added_index
    for change in model.adjustments:
        yield "adjusted", *change
    for order_id, held in model.reservations.items():
        ends = (held.at, _some(held.finished_at), held.place)
        yield "reservation", order_id, held.user, held.state, packed(held.lines), *ends
    for placed_id, placed in model.orders.items():
        yield from _order_rows(placed_id, placed, number)
    for name, campaign in model.campaigns.items():
        rule = _rule_cells(campaign.rule)
        window = (campaign.opens_at, campaign.closes_at, int(campaign.valid_days))
        yield "campaign", name, campaign.name, *rule, campaign.quantity, campaign.issued, *window, campaign.place
        for user, (issue, at, issue_rule, days) in campaign.issues.items():
            yield "issue", name, user, issue, *_rule_cells(issue_rule), int(days), int(at)
    for coupon_id, coupon in model.coupons.items():
        yield (
            "coupon", coupon_id, coupon.user, coupon.campaign, int(coupon.number), *_rule_cells(coupon.rule),
            coupon.state, coupon.order, int(coupon.issued_at), coupon.valid_from, coupon.valid_until,
            _some(coupon.used_at), coupon.place,
        )  # fmt: skip
    for day, sales in model.sales.items():
        for product_id, quantity in sales.items():
            yield "sale", day, product_id, quantity


def _order_rows(order_id: str, order: Order, number: int) -> Iterable[tuple[Any, ...]]:
    yield (
        "order", order_id, order.user, order.status, order.failure, order.subtotal, order.discount, order.total,
        order.coupon, order.at, _some(order.pay_before), _some(order.paid_at), _some(order.finished_at), order.place,
    )  # fmt: skip
    for line_no, line in enumerate(orjson.loads(order.lines), 1):
        yield "line", order_id, line_no, *line.values()
    if order.coupon:
        campaign, issue, *rule = order.coupon_rule
        state = {"awaiting_payment": "taken", "completed": "used", "failed": "returned"}[order.status]
        cells = _rule_cells((rule[0], rule[1], rule[2], rule[3]))
        record = (order.coupon, order.user, campaign, int(issue), *cells, order.discount, state, order.discount_at)
        yield "discount", order_id, *record
    if order.status == "completed":
        yield "outbox", order_id, order.user, f"{number}:{order.paid_place}"


def _rule_cells(rule: tuple[str, str, str, str]) -> tuple[Any, ...]:
    kind, value, minimum, maximum = rule
    return kind, int(value), _some(minimum), _some(maximum)


def _some(text: str) -> int | None:
    return int(text) if text else None
