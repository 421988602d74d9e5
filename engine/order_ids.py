"""Order ids: UUIDs of version 7, which carry their creation time, so that an old one can be refused."""

import secrets

_UUID_LENGTH = 36


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
    if len(text) != _UUID_LENGTH or text[14] != "7" or text[19] not in "89ab":
        return False
    parts = text.split("-")
    return [len(part) for part in parts] == [8, 4, 4, 4, 12] and all(
        character in "0123456789abcdef" for part in parts for character in part
    )
