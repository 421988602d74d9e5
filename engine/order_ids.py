"""Order ids: UUIDs of version 7, which carry their creation time, so that an old one can be refused."""

import re
import secrets

_ORDER_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII)


def make_order_id(at_ms: int) -> str:
    """A new id made at ``at_ms`` (ms since 1970): RFC 9562, 48 bits of time and 74 of chance."""
    random = secrets.randbits(74)
    number = (at_ms << 80) | (0x7 << 76) | ((random >> 62) << 64) | (0b10 << 62) | (random & ((1 << 62) - 1))
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def lowest_order_id(at_ms: int) -> str:
    """The lowest id that could be made at ``at_ms``: ids in their order are in the order of their times."""
    digits = f"{max(0, at_ms):012x}"
    return f"{digits[:8]}-{digits[8:12]}-7000-8000-000000000000"


def created_ms(order_id: str) -> int:
    """When the id was made, ms since 1970. Raises ``ValueError`` for what is no such id."""
    if not is_order_id(order_id):
        raise ValueError(f"not an order id: {order_id!r}")
    return int(order_id[:8] + order_id[9:13], 16)


def is_order_id(text: str) -> bool:
    """Whether ``text`` is written as an order id of ours is: lower-case, version 7."""
    return _ORDER_ID.fullmatch(text) is not None
