"""Servers that assets are read from: one that has gone silent is told once, waited for, and given up in good time."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from pipeline.events import Listener, Note

log = logging.getLogger(__name__)

WAITING = "waiting for "
LIMIT = 75.0
"""Seconds without one answer after which a server is given up by a process that reads from it: with the attempt that is
under way then, a minute and a half after the first request."""
PROBE = 10.0
"""Seconds between two attempts at a server that was given up: it may have come back."""

_ANSWER = re.compile(r"HTTP response code: \d")
_SILENT = re.compile(r"CURL error|HTTP response code: (429|5\d\d)|timed? ?out|Connection", re.IGNORECASE)


@dataclass(slots=True)
class _Outage:
    since: float
    tried: float
    reason: str


@dataclass(slots=True)
class Hosts:
    """Which servers are silent, and since when, as the reading threads of one process know it."""

    clock: Callable[[], float] = time.monotonic
    limit: float = LIMIT
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _out: dict[str, _Outage] = field(default_factory=dict)

    def given_up(self, host: str) -> str | None:
        """Why a server need not be asked now, or None: it may be, or a while has passed since it was last."""
        with self._lock:
            outage, now = self._out.get(host), self.clock()
            if outage is None or now - outage.since < self.limit:
                return None
            if now - outage.tried >= PROBE:
                outage.tried = now
                return None
            return f"{host} has not answered for {now - outage.since:.0f} s: {outage.reason}"

    def unreachable(self, host: str) -> bool:
        """Whether a server gives no answer at all, not even that it is busy: one request at a time is enough then."""
        outage = self._out.get(host)
        return outage is not None and _ANSWER.search(outage.reason) is None

    def failed(self, host: str, reason: str) -> None:
        """An attempt was not answered; the first of an outage is told."""
        with self._lock:
            now = self.clock()
            known = self._out.get(host)
            if known is not None:
                known.tried, known.reason = now, reason
                return
            self._out[host] = _Outage(now, now, reason)
        log.warning("%s%s: %s; it is tried again for up to %g s, then tiles fail", WAITING, host, reason, self.limit)

    def answered(self, host: str) -> None:
        """An attempt was answered: an outage, if there was one, is over."""
        if host not in self._out:
            return
        with self._lock:
            outage = self._out.pop(host, None)
        if outage is not None:
            log.info("%s answers again after %.0f s", host, self.clock() - outage.since)


def host_of(href: str) -> str:
    """Host and port of an address; empty for a file."""
    try:
        return urlsplit(href).netloc.rpartition("@")[2]
    except ValueError:
        return ""


def silent(reason: str) -> bool:
    """Whether an error says that a server did not answer or was too busy, rather than that the file is no good."""
    return _SILENT.search(reason) is not None


@contextmanager
def announced(listener: Listener) -> Iterator[None]:
    """Within this context `listener` hears, as warnings, which servers are waited for; each of them once.

    What workers log comes here by `logs.forward`: threads that read are none that Dask knows.
    """
    handler = _Announcing(listener)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


class _Announcing(logging.Handler):
    def __init__(self, listener: Listener) -> None:
        super().__init__(logging.WARNING)
        self._listener, self._told = listener, set[str]()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        host = text.removeprefix(WAITING).partition(": ")[0]
        if text.startswith(WAITING) and host not in self._told:
            self._told.add(host)
            self._listener(Note("warning", text))
