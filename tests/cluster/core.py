"""The core of the shop and of its durability: the tests that are marked so, to be run on a cluster too."""

from collections.abc import Callable

from tests.api import (
    test_coupons,
    test_history,
    test_idempotency,
    test_orders,
    test_payments,
    test_positions,
    test_products,
)
from tests.faults import test_redis_lost

_FILES = (
    test_coupons,
    test_history,
    test_idempotency,
    test_orders,
    test_payments,
    test_positions,
    test_products,
    test_redis_lost,
)


def core_tests() -> dict[str, Callable[..., object]]:
    """Tests by name, for a file whose fixtures open a shop on a cluster."""
    found: dict[str, Callable[..., object]] = {}
    for file in _FILES:
        own = {
            name: value
            for name, value in vars(file).items()
            if any(mark.name == "core" for mark in getattr(value, "pytestmark", ()))
        }
        assert own, f"nothing in {file.__name__} is marked as core"
        assert not own.keys() & found.keys()
        found |= own
    return found
