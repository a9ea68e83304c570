"""What a run had to ask for again: repeated requests, counted by host, of a search and of the reading of assets.

Three hands repeat: urllib3 in a search, GDAL inside one attempt at an asset, and the reader with another attempt.
GDAL's are known from its warnings, which rasterio logs: of an opening in one place, of a read in another. So every
refusal (429, 5xx) counts once. Two things GDAL does in silence, and they make the count a lower bound: it fetches anew
what a cut connection did not bring, and what was refused in the middle of a file through all its repeats it asks for
once more.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from pipeline.hosts import host_of

FILES = "files"
"""Stands for the host of what is read from a disk."""

_REPEATED = re.compile(r"HTTP error code: (\d+) - (\S+)\. Retrying again")
"""What GDAL warns of before it repeats a request (port/cpl_http.cpp): 0 where there was no answer; the address may be
signed."""
_LOGGERS = ("rasterio._env", "rasterio._err")
"""Where rasterio logs GDAL's warnings: those of openings, and those of reads."""


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
    def reading(self, unanswered: Callable[[str, str], None] = lambda host, reason: None) -> Iterator[None]:
        """What GDAL repeats by itself in this thread, while the context lasts, counts here.

        `unanswered(host, reason)` hears of each repeat that had no answer: GDAL may go on with it for a minute.
        """
        _overhear()
        before = getattr(_thread, "hears", None)
        _thread.hears = self, unanswered
        try:
            yield
        finally:
            _thread.hears = before


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


class _Ear(logging.Filter):
    """Counts the warnings of a thread that reads, and lets none of them through: the address may hold a token."""

    def filter(self, record: logging.LogRecord) -> bool:
        hears: tuple[Repeats, Callable[[str, str], None]] | None = getattr(_thread, "hears", None)
        found = _REPEATED.search(record.getMessage()) if hears is not None else None
        if hears is None or found is None:
            return True
        repeats, unanswered = hears
        repeats.add(found[2])
        if found[1] == "0":
            unanswered(host_of(found[2]), "no connection")
        return False


@cache
def _overhear() -> None:
    """Listen to GDAL's warnings, which rasterio logs in the thread in which they come up: GDAL counts no repeats."""
    ear = _Ear()
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.WARNING)  # its own: a quiet terminal raises the level of all of rasterio
        logger.addFilter(ear)
