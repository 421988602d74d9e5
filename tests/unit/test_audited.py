"""Which entities the audit looks at after an event."""

import pytest

from engine.events import Event
from persistence.audited import Entity, Subject, changed_by

ORDER = "019ab000-0000-7000-8000-000000000001"
OTHER = "019ab000-0000-7000-8000-000000000002"
TEA = Entity(Subject.PRODUCT, 3, "tea")


def reservation(order: str) -> Entity:
    return Entity(Subject.RESERVATION, 3, order, "3")


def changed(kind: str, **fields: str) -> set[Entity]:
    event = Event(3, 1, 9, kind, "2", 17, fields)
    return {entity for entities in changed_by([event]).values() for entity in entities}


@pytest.mark.parametrize("kind", ["stock.reserved", "stock.released", "stock.adopted"])
def test_a_change_of_stock_is_of_its_reservation_and_its_products(kind: str) -> None:
    assert changed(kind, order=ORDER, lines="tea:s:1") == {reservation(ORDER), TEA}


def test_a_confirm_is_of_the_reservation_of_each_of_its_orders() -> None:
    sold = changed("stock.confirmed", orders=f"{ORDER},{OTHER}", day="20261122", lines="tea:s:2")
    assert sold == {reservation(ORDER), reservation(OTHER), TEA}
