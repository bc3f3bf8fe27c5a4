"""A cache with a bound in bytes, for data that is read in random order."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """Keeps what came first, until it is full; then nothing more gets in.

    Training reads every sample once per epoch in an order that is new each time. Of data k times as large as the cache
    this answers a share of 1/k from memory. Throwing out what was used longest ago would answer 1/(2 k^2) only: what
    comes next is likely what was just thrown out. Pickles empty.
    """

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._values: dict[Hashable, Value] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"max_bytes": self.max_bytes, "nbytes": 0, "_values": {}}

    def get(self, key: Hashable, make: Callable[[], Value], size: Callable[[Value], int]) -> Value:
        """The kept value, or a newly made one. size: bytes that a value takes."""
        if key in self._values:
            return self._values[key]
        value = make()
        needed = size(value)
        if self.nbytes + needed <= self.max_bytes:
            self._values[key] = value
            self.nbytes += needed
        return value
