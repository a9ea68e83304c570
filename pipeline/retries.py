"""What a run had to ask for again: repeated requests, counted by host, of a search and of the reading of assets.

Three hands repeat: urllib3 in a search, GDAL inside one attempt at an asset, and the reader with another attempt.
GDAL's are known from its warnings; those in the middle of a read (not of an opening) rasterio keeps to itself, so the
count of a reading is a lower bound.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from pipeline.hosts import host_of

FILES = "files"
"""Stands for the host of what is read from a disk."""

_REPEATED = re.compile(r"HTTP error code: \d+ - (\S+)\. Retrying again")
"""What GDAL warns of before it repeats a request (port/cpl_http.cpp); the address may be signed."""


class Repeats:
    """How many requests were repeated, by host and port; several threads may count at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, address: str, count: int = 1) -> None:
        """Count repeats at the host of `address`; nothing else of it is kept, for it may be signed."""
        with self._lock:
            self._counts[host_of(address) or FILES] += count

    @property
    def counts(self) -> dict[str, int]:
        """Repeats by host, in the order of their names."""
        with self._lock:
            return dict(sorted(self._counts.items()))

    def answered(self, response: Any, *_: Any, **__: Any) -> None:
        """A hook for responses of a requests session: count what urllib3 had repeated before this one came."""
        history = getattr(getattr(response.raw, "retries", None), "history", ())
        for past in history:
            if past.redirect_location is None:
                self.add(str(response.url))

    @contextmanager
    def reading(self) -> Iterator[None]:
        """What GDAL repeats by itself in this thread, while the context lasts, counts here."""
        _overhear()
        before = getattr(_thread, "repeats", None)
        _thread.repeats = self
        try:
            yield
        finally:
            _thread.repeats = before


def added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum of several counts by host."""
    total: Counter[str] = Counter()
    for some in counts:
        total.update(some)
    return dict(sorted(total.items()))


def told(counts: Mapping[str, int]) -> str:
    """Counts by host in one line of text."""
    total = sum(counts.values())
    by_host = ", ".join(f"{count} at {host}" for host, count in counts.items())
    return f"{total} {'request' if total == 1 else 'requests'} had to be repeated: {by_host}"


_thread = threading.local()


class _Ear(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        repeats: Repeats | None = getattr(_thread, "repeats", None)
        found = _REPEATED.search(record.getMessage())
        if repeats is not None and found is not None:
            repeats.add(found[1])


@cache
def _overhear() -> None:
    """Listen to GDAL's warnings, which rasterio logs in the thread in which they come up: GDAL counts no repeats."""
    gdal = logging.getLogger("rasterio._env")
    gdal.setLevel(logging.WARNING)  # its own: a terminal that is to stay quiet raises the level of all of rasterio
    gdal.addHandler(_Ear(logging.WARNING))
