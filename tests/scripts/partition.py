"""One partition of a real server, its scripts called by the names in their heads, and all that it holds compared.

Every script runs with a shim before it that ends it at a key it did not declare, at a command that is newer than Redis
6.2 or not known here, and at a first write that is not the event.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from hashlib import sha1
from typing import Any

import redis

from engine.events import pairs_of
from engine.keys import Keys
from engine.order_ids import make_order_id
from engine.partitions import Partitions
from engine.scripts import Script, load_scripts

SERVER = "run:replid"
NOW = 1_800_000_000_000
"""The test's time, ms since 1970."""

SHIM = """
local declared, written = {}, %(without_event)s
for _, key in ipairs(KEYS) do
  declared[key] = true
end
local reads = {HGET = 1, HMGET = 1, HGETALL = 1, EXISTS = 2, ZRANGE = 1, ZRANGEBYLEX = 1, TIME = 0}
local writes = {XADD = 1, HSET = 1, HDEL = 1, HINCRBY = 1, ZADD = 1, ZINCRBY = 1, XTRIM = 1, DEL = 1, UNLINK = 1,
  PEXPIRE = 1, PEXPIREAT = 1}
local server = redis
local redis = {error_reply = server.error_reply, call = function(command, ...)
  local keys = reads[command] or writes[command]
  assert(keys, 'a command that no script should need: ' .. command)
  for index = 1, keys do
    local key = select(index, ...)
    assert(declared[key], 'an undeclared key: ' .. key)
  end
  if writes[command] then
    assert(written or command == 'XADD', 'the first write is not the event: ' .. command)
    written = true
    if command == 'XADD' then
      for index = 1, select('#', ...) do
        local field = select(index, ...)
        assert(type(field) == 'string' and not field:find('%%z'), 'a release before would stop at this event')
        assert(not field:find('%%de%%+%%d'), 'a number was written as Lua writes large ones: ' .. field)
      end
    end
  end
  return server.call(command, ...)
end}
"""

DEFAULTS: dict[str, Any] = {
    "backlog_max": 1000,
    "user": "kim",
    "product": "shirt",
    "campaign": "spring",
    "balance_max": 100_000_000,
    "payment_max": 50_000_000,
    "discount_min": 1,
    "discount_max": 1_000_000,
    "available_max": 1_000_000_000_000,
    "stock_items_max": 200,
    "quantity_max": 100_000,
    "hold": 1,
    "age_max_ms": 30_000,
    "created_ms": NOW,
    "pay_within_ms": 86_400_000,
    "lines": "[]",
    "name": "Name",
    "price": 1_000,
    "stock_json": "[]",
    "kind": "amount",
    "value": 300,
    "quantity": 10,
    "opens_at": NOW - 1_000,
    "closes_at": NOW + 1_000_000,
    "valid_days": 7,
    "number": 1,
    "issued_at": NOW,
    "issue_day": "20270115",
    "valid_from": NOW,
    "valid_until": NOW + 1_000_000,
    "reason": "count",
    "day": "20270115",
    "subtotal": 1_000,
    "epoch": 1,
    "format": 1,
    "keep_from_seq": 0,
    "count_max": 100,
}

COUPON_TERMS = (
    "number", "kind", "value", "minimum_order", "maximum_discount", "issued_at", "valid_from", "valid_until",
)  # fmt: skip
"""What `grant_coupon` is given in one piece, by commas."""

CHANGING_SCRIPTS = sorted(
    name
    for name, script in load_scripts().items()
    if any(argument.name == "backlog_max" for argument in script.head.arguments) and script.head.events
)
READ_SCRIPTS = sorted(
    name for name, script in load_scripts().items() if any(answer.status == "read" for answer in script.head.returns)
)
KEY_SCRIPTS = ["claim_key", "free_key"]
"""What changes nothing of the shop: no events."""

META_SCRIPTS = sorted(set(load_scripts()) - {*CHANGING_SCRIPTS, *READ_SCRIPTS, *KEY_SCRIPTS})
"""What only changes a partition's meta, or loads a partition that is not trusted: no events."""


class Partition:
    """Partition ``index`` of 64. `run` calls a script; a reply is lists and text, its status first."""

    def __init__(self, client: redis.Redis, index: int = 7) -> None:
        self.client = client
        self.index = index
        self.keys = Keys(Partitions(64))

    def begin(self, *, epoch: int = 1) -> None:
        """An empty, trusted partition."""
        self.client.flushall()
        assert self.run("init_partition", generation=1, epoch=epoch) == ["trusted"]

    def run(self, script_name: str, /, *rest: str | int, **arguments: Any) -> Any:
        """Call a script with these arguments, ``rest`` for the last that repeats, the others as `DEFAULTS`."""
        script = load_scripts()[script_name]
        given: dict[str, Any] = {"server": SERVER, "generation": 1, "now_ms": NOW, **DEFAULTS, **arguments}
        given.setdefault("terms", ",".join(str(given.get(name, "")) for name in COUPON_TERMS))
        values: list[Any] = []
        for argument in script.head.arguments:
            values += rest if argument.repeats else [given.get(argument.name, "")]
        keys = self._keys_of(script, given, rest)
        source, sha = _shimmed(script_name)
        try:
            return self._execute("EVALSHA", sha, len(keys), *keys, *values)
        except redis.exceptions.NoScriptError:
            self._execute("SCRIPT", "LOAD", source)
            return self._execute("EVALSHA", sha, len(keys), *keys, *values)

    def dump(self) -> dict[str, Any]:
        """All that the server holds."""
        return {key: self._value(key) for key in sorted(_text(self.client.keys("*")))}

    def hash(self, key: str) -> dict[str, str]:
        """A hash as text."""
        return dict(self._execute("HGETALL", key))

    def wallet(self, user: str = "kim") -> dict[str, str]:
        return self.hash(self.keys.wallet(self.index, user))

    def order(self, order: str) -> dict[str, str]:
        return self.hash(self.keys.order(self.index, order))

    def product(self, product: str = "shirt") -> dict[str, str]:
        return self.hash(self.keys.product(self.index, product))

    def reservation(self, order: str) -> dict[str, str]:
        return self.hash(self.keys.reservation(self.index, order))

    def campaign(self, campaign: str = "spring") -> dict[str, str]:
        return self.hash(self.keys.campaign(self.index, campaign))

    def coupon(self, coupon: str, user: str = "kim") -> list[str]:
        """A coupon's packed fields: state first, then order (10), used_at (11) and seq (12)."""
        return str(self.hash(self.keys.coupons(self.index, user))[coupon]).split(",")

    def units(self, stock: str = "S", product: str = "shirt") -> tuple[int, int, int]:
        """Available, reserved and sold units of a stock item."""
        fields = self.product(product)
        return int(fields[f"a:{stock}"]), int(fields[f"r:{stock}"]), int(fields[f"s:{stock}"])

    def events(self) -> list[tuple[str, dict[str, str]]]:
        """The stream: places and fields."""
        return self._stream(self.keys.events(self.index))

    def stock_shop(self) -> None:
        """A shirt of two sizes (10 S and 5 M at 1,000) and a hat of one (3 at 500)."""
        assert self.run("put_product", "S", "small", 10, "M", "middle", 5, product="shirt", price=1_000)[0] == "created"
        assert self.run("put_product", "one", "", 3, product="hat", name="Hat", price=500)[0] == "created"

    def reserve(self, order: str, *lines: tuple[str, str, int | str], **arguments: Any) -> Any:
        """`reserve_stock` of lines (product, stock or nothing, quantity)."""
        numbers = {product: number for number, product in enumerate(dict.fromkeys(line[0] for line in lines), 1)}
        rest = [part for line in lines for part in (numbers[line[0]], *line)]
        return self.run("reserve_stock", *rest, order=order, **arguments)

    def confirm(self, order: str, *products: str, **arguments: Any) -> Any:
        """`confirm_stock` of one order: what its reservation is, and its place."""
        status, outcomes = self.run("confirm_stock", order, *products, orders=1, **arguments)
        assert status == "confirmed"
        return outcomes

    def issue(self, *users: str, **arguments: Any) -> list[list[str]]:
        """`issue_coupons` to these users, or to kim: the answer to each."""
        status, answers = self.run("issue_coupons", *(users or ("kim",)), **arguments)
        assert (status, len(answers)) == ("answered", len(users) or 1)
        return list(answers)

    def grant(self, **arguments: Any) -> str:
        """A coupon for the user: 300 off unless told otherwise. Its id."""
        reply = self.run("grant_coupon", **arguments)
        assert reply[0] == "granted"
        return str(reply[2])

    def place(self, order: str, **arguments: Any) -> None:
        """An order that awaits payment."""
        assert self.run("place_order", order=order, **arguments)[0] == "placed"

    def time(self) -> tuple[int, int]:
        """The server's clock: seconds and microseconds."""
        seconds, micros = self._execute("TIME")
        return int(seconds), int(micros)

    def seq(self) -> int:
        """The partition's last sequence."""
        return int(self.hash(self.keys.meta(self.index))["seq"])

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """What is done within changes nothing at all."""
        before = self.dump()
        yield
        assert self.dump() == before

    @contextmanager
    def one_event(self, kind: str, /, **fields: Any) -> Iterator[dict[str, str]]:
        """What is done within makes exactly one event, the next in the sequence, with these fields."""
        before, seq = self.events(), self.seq()
        seen: dict[str, str] = {}
        yield seen
        after = self.events()
        assert after[:-1] == before
        place, event = after[-1]
        assert place == f"1-{seq + 1}"
        assert self.seq() == seq + 1
        assert list(event)[:4] == ["type", "v", "at", "request"]
        assert (event["type"], event["v"]) == (kind, "2")
        assert event["type"] in _events_of_heads()
        assert {name: event.get(name) for name in fields} == {name: str(value) for name, value in fields.items()}
        seen.update(event)

    def _execute(self, *command: str | int) -> Any:
        return _text(self.client.execute_command(*command))  # type: ignore[no-untyped-call]

    def _stream(self, key: str) -> list[tuple[str, dict[str, str]]]:
        entries: Any = self.client.xrange(key)
        return [
            (_text(place), {_text(name): _text(value) for name, value in pairs_of(list(sum(fields.items(), ())))})
            for place, fields in entries
        ]

    def _keys_of(self, script: Script, given: dict[str, Any], rest: Sequence[str | int]) -> list[str]:
        keys, at = self.keys, self.index
        one = {
            "meta": lambda: keys.meta(at),
            "events": lambda: keys.events(at),
            "wallet": lambda: keys.wallet(at, given["user"]),
            "coupons": lambda: keys.coupons(at, given["user"]),
            "order_key": lambda: keys.order(at, given["order"]),
            "reservation": lambda: keys.reservation(at, given["order"]),
            "sales": lambda: keys.sales(at, given["day"]),
            "products": lambda: keys.products(at),
            "campaigns": lambda: keys.campaigns(at),
            "campaign_key": lambda: keys.campaign(at, given["campaign"]),
            "issues": lambda: keys.issues(at, given["campaign"]),
            "product_key": lambda: keys.product(at, given["product"]),
            "ids": lambda: given["ids"],
            "hash": lambda: given["hash"],
            "cold": lambda: keys.cold(at),
        }
        built: list[str] = []
        for key in script.head.keys:
            if key.name == "key_record":
                # The last key, left out by a request that carries no key.
                built += (
                    [keys.request_key(at, given.get("owner", given["user"]), given["key"])] if given.get("key") else []
                )
            elif not key.repeats:
                built.append(one[key.name]())  # type: ignore[no-untyped-call]
            elif "repeated_keys" in given:
                built += given["repeated_keys"]
            elif key.name == "held_key":
                count = int(given["orders"])
                built += [keys.reservation(at, str(order)) for order in rest[:count]]
                built += [keys.product(at, str(product)) for product in rest[count:]]
            elif key.name == "product_key":
                ids = dict.fromkeys(rest[1::4]) if script.name == "reserve_stock" else rest
                built += [keys.product(at, str(product)) for product in ids]
        return built

    def _value(self, key: str) -> Any:
        kind = _text(self.client.type(key))
        if kind == "hash":
            return self.hash(key)
        if kind == "stream":
            return self._stream(key)
        assert kind == "zset", kind
        return self._execute("ZRANGE", key, 0, -1, "WITHSCORES")


def order_id(at_ms: int = NOW) -> str:
    """A new order id."""
    return make_order_id(at_ms)


@cache
def _shimmed(script_name: str) -> tuple[str, str]:
    without_event = "true" if script_name in {*META_SCRIPTS, *KEY_SCRIPTS} else "false"
    source = SHIM % {"without_event": without_event} + load_scripts()[script_name].source
    return source, sha1(source.encode()).hexdigest()


def _events_of_heads() -> set[str]:
    return {kind for script in load_scripts().values() for kind in script.head.events}


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list | tuple):
        return [_text(item) for item in value]
    if isinstance(value, dict):
        return {_text(key): _text(item) for key, item in value.items()}
    return value
