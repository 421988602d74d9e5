"""A memory of bounded size."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


class Recent(Generic[KeyT, ValueT]):
    """Remembers what was put last: at least ``kept_min`` keys, never more than twice as many.

    There are two generations. When the younger one is full it becomes the older one, which is forgotten as a whole; so
    nothing is ever searched for what to forget.
    """

    __slots__ = ("_kept_min", "_older", "_younger")

    def __init__(self, kept_min: int) -> None:
        self._kept_min = kept_min
        self._younger: dict[KeyT, ValueT] = {}
        self._older: dict[KeyT, ValueT] = {}

    def __len__(self) -> int:
        return len(self._younger.keys() | self._older.keys())

    def get(self, key: KeyT) -> ValueT | None:
        """What was put last under this key; None where that is forgotten."""
        found = self._younger.get(key)
        return self._older.get(key) if found is None else found

    def put(self, key: KeyT, value: ValueT) -> None:
        """Remembers a value."""
        if len(self._younger) >= self._kept_min and key not in self._younger:
            self._older = self._younger
            self._younger = {}
        self._younger[key] = value
