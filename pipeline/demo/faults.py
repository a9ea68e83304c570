"""What can go wrong between a client and a catalogue, on demand: refusals, broken connections, short files, delay."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it arrived: `path` without the query, `range` the Range header or None."""

    method: str
    path: str
    query: str = ""
    range: str | None = None
    body: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """A request and how it ended: status (0: connection dropped), bytes of body sent, seconds taken."""

    request: Request
    status: int
    sent: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to requests whose path matches `path`, and query `query` (shell patterns, * also over slashes).

    The first `skip` of them pass; of the rest each `every`-th is hit, `times` of them (None: all). `status` answers
    with that code, `drop` closes the connection without an answer, `truncate` announces the whole body, sends so many
    bytes and closes, `short` serves a file as if so many bytes were all of it, `latency` waits so many seconds first
    (alone or before one of the others); `retry_after` adds that header to `status`.
    """

    path: str
    times: int | None = 1
    skip: int = 0
    every: int = 1
    query: str = "*"
    method: str | None = None
    status: int | None = None
    retry_after: int | None = None
    drop: bool = False
    truncate: int | None = None
    short: int | None = None
    latency: float = 0.0

    def matches(self, request: Request) -> bool:
        """Whether the rule speaks of this request."""
        if self.method is not None and self.method != request.method:
            return False
        return fnmatchcase(request.path, self.path) and fnmatchcase(request.query, self.query)


Judge = Callable[[Request], Fault | None]
"""A function instead of rules: the fault for this request, or None."""


class Faults:
    """The rules in force and how often each has been met; safe to change while the server runs."""

    def __init__(self, rules: Judge | Sequence[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self.set(rules)

    def set(self, rules: Judge | Sequence[Fault] = ()) -> None:
        """Put these rules in the place of the old ones, counters at zero; nothing ends all faults."""
        with self._lock:
            self._judge = rules if callable(rules) else None
            self._rules: list[Fault] = [] if callable(rules) else list(rules)
            self._met = [0] * len(self._rules)

    def add(self, fault: Fault) -> None:
        """Put one more rule behind the others."""
        with self._lock:
            self._rules.append(fault)
            self._met.append(0)

    def strike(self, request: Request) -> Fault | None:
        """The fault that hits this request; of several rules the first that still has hits left."""
        if self._judge is not None:
            return self._judge(request)
        with self._lock:
            for number, rule in enumerate(self._rules):
                if not rule.matches(request):
                    continue
                self._met[number] += 1
                hit, rest = divmod(self._met[number] - rule.skip, rule.every)
                if hit >= 1 and rest == 0 and (rule.times is None or hit <= rule.times):
                    return rule
        return None


class Log:
    """Every request answered, in order of its end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answered: list[Answered] = []

    def add(self, request: Request, status: int, sent: int, since: float) -> None:
        """Note one answer that began at `since` (time.perf_counter)."""
        with self._lock:
            self._answered.append(Answered(request, status, sent, time.perf_counter() - since))

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._answered.clear()

    def all(self) -> tuple[Answered, ...]:
        """All answers so far."""
        with self._lock:
            return tuple(self._answered)

    def count(self, path: str = "*", *, method: str | None = None, status: int | None = None) -> int:
        """How many requests match the shell pattern, method and status."""
        rule = Fault(path, method=method)
        return sum(rule.matches(a.request) and status in (None, a.status) for a in self.all())
