"""One run at a time in an object store: a lock that its holder renews, and that anybody may take once it does not.

On a disk the kernel releases the lock of a dead process. An object store has conditional writes: whoever creates the
object holds it, each renewal replaces the version that was read, and so does whoever takes over a lock that stood
still. Nobody's clock is compared with another's.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from pipeline.errors import StoreError
from pipeline.store import Store, Unsupported

log = logging.getLogger(__name__)

LOCK = ".lock"
"""What the run at work in a store holds; on a disk the kernel keeps it (pipeline.job.alone)."""
LIFE = 60.0
"""Seconds without renewal after which a lock is anybody's."""
RENEWALS = 6
"""Renewals in that time: a store that is slow, or refuses a few times, costs nobody the lock."""


@contextmanager
def held(store: Store, life: float = LIFE) -> Iterator[None]:
    """Hold the lock of a store in an object store while the context lasts.

    Raises StoreError where another run holds and renews it; at the end, where it was lost: the store could not be
    reached for longer than `life` and another run began there. A store without conditional writes is used without.
    """
    try:
        lease = _taken(store, life)
    except Unsupported as error:
        log.warning("%s; nothing keeps a second run out of it", error)
        yield
        return
    stop = threading.Event()
    renewing = threading.Thread(target=lease.renew, args=(stop, life / RENEWALS), name="lease", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        stop.set()
        renewing.join(life)
        lease.end()
    if lease.lost:
        raise StoreError(
            f"another run took over {store.url} while it could not be reached from here; what was made by both is the "
            "same, but the end is not certain. Run the same command again: it goes on from what is there"
        )


@dataclass
class Lease:
    """The lock while it is ours."""

    store: Store
    identity: dict[str, Any]
    tag: str
    beat: int = 0
    lost: bool = False
    ended: threading.Lock = field(default_factory=threading.Lock)

    def renew(self, stop: threading.Event, pause: float) -> None:
        """Renew it every `pause` seconds until `stop`."""
        while not stop.wait(pause) and not self.lost:
            with suppress(StoreError), self.ended:  # the store is away: once it is back, the tag tells
                self.step()

    def step(self) -> None:
        """Renew it once; `lost` where another run has taken it."""
        self.beat += 1
        tag = self.store.replace(LOCK, _document(self.identity, self.beat), self.tag)
        if tag is None:
            found = self.store.tagged(LOCK)
            # a renewal whose answer was lost has been repeated, and came second to itself
            if found is not None and _holder(found[0]).get("run") == self.identity["run"]:
                tag = found[1]
        if tag is None:
            self.lost = True
            log.error("another run has taken over %s", self.store.url)
        else:
            self.tag = tag

    def end(self) -> None:
        """Release it, if it is still ours."""
        with suppress(StoreError), self.ended:
            self.step()
            if not self.lost:
                self.store.delete(LOCK)


def _taken(store: Store, life: float) -> Lease:
    me = _identity()
    waited_for, until = "", 0.0
    while True:
        tag = store.create(LOCK, _document(me, 0))
        if tag is not None:
            return Lease(store, me, tag)
        found = store.tagged(LOCK)
        if found is None:
            continue
        other, seen = _holder(found[0]), found[1]
        if other.get("run") == me["run"]:
            return Lease(store, me, seen)
        if not waited_for:
            waited_for, until = seen, time.monotonic() + life
            if not _dead(other):
                log.warning(
                    "%s was locked by %s: waiting up to %.0f s for a sign of life", store.url, _name(other), life
                )
        if seen != waited_for:
            raise StoreError(
                f"another run ({_name(other)}) is at work in {store.url}; two would spoil each other's tiles. "
                "Wait for it, or choose another --store"
            )
        if _dead(other) or time.monotonic() > until:
            tag = store.replace(LOCK, _document(me, 0), seen)
            if tag is not None:
                log.info("took over %s from %s, which is gone", store.url, _name(other))
                return Lease(store, me, tag)
        time.sleep(life / RENEWALS / 4)


def _identity() -> dict[str, Any]:
    process = psutil.Process()
    return {
        "run": uuid.uuid4().hex,
        "host": socket.gethostname(),
        "boot": psutil.boot_time(),
        "process": process.pid,
        "born": process.create_time(),
        "pids": _numbering(),
    }


def _numbering() -> str | None:
    """Which processes of a host the numbers here are of (Linux): containers on one host may share its name."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None


def _document(identity: dict[str, Any], beat: int) -> bytes:
    return json.dumps({**identity, "beat": beat}).encode()


def _holder(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _name(holder: dict[str, Any]) -> str:
    return f"process {holder.get('process', 'unknown')} on {holder.get('host', 'an unknown machine')}"


def _dead(holder: dict[str, Any]) -> bool:
    """Whether the holder was a process of this machine that is gone; of another machine nobody can tell."""
    if holder.get("host") != socket.gethostname() or abs(float(holder.get("boot", 0)) - psutil.boot_time()) > 5:
        return False
    if holder.get("pids") != _numbering():
        return False
    try:
        process = psutil.Process(int(holder["process"]))
        return bool(abs(process.create_time() - float(holder["born"])) > 1 or process.status() == psutil.STATUS_ZOMBIE)
    except (psutil.NoSuchProcess, KeyError, ValueError):
        return True
