"""Patches of several dates as whole batches: the short last batch of a date waits for the next date's first patches."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Date = TypeVar("Date")


@dataclass(frozen=True, slots=True)
class Share(Generic[Date]):
    """Patches [first, last) of one date."""

    date: Date
    first: int
    last: int


Call = tuple[Share[Date], ...]
"""What goes through a method at once, in this order: patches of one date, or one batch of several."""


class Calls(Generic[Date]):
    """Dates in, calls out. Which patches share a batch follows from the order of dates and their counts alone.

    Patches of one `kind` (the method, and what it is given) make whole batches of `batch`; less than one waits.
    """

    def __init__(self, batch: int) -> None:
        if batch < 1:
            raise ValueError(f"batch of {batch} patches; it must be at least 1")
        self._batch = batch
        self._waiting: dict[Hashable, list[tuple[int, Share[Date]]]] = {}

    def add(self, date: Date, kind: Hashable, count: int, block: int) -> list[Call[Date]]:
        """The calls that `count` patches of a date make possible; `block`: which of the blocks of dates it lies in."""
        waiting = self._waiting.setdefault(kind, [])
        room = self._batch - sum(share.last - share.first for _, share in waiting)
        out: list[Call[Date]] = []
        first = min(room, count) if waiting else 0
        if first:
            waiting.append((block, Share(date, 0, first)))
            if first == room:
                out.append(tuple(share for _, share in waiting))
                waiting.clear()
        last = first + (count - first) // self._batch * self._batch
        if last > first:
            out.append((Share(date, first, last),))
        if last < count:
            waiting.append((block, Share(date, last, count)))
        return out

    def rest(self, before: int | None = None) -> list[Call[Date]]:
        """What still waits, in short batches: all of it, or only where a date of a block under `before` waits."""
        out: list[Call[Date]] = []
        for waiting in self._waiting.values():
            if waiting and (before is None or waiting[0][0] < before):
                out.append(tuple(share for _, share in waiting))
                waiting.clear()
        return out
