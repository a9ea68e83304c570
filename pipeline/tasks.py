"""Tiles as futures: a bounded window of them, each with a name a person can read, each tried again if it fails."""

from __future__ import annotations

import asyncio
import logging
import queue
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import distributed
from distributed import Client, Future

from pipeline import settings
from pipeline.cluster import require_scheduler, slots
from pipeline.errors import CatalogError, ClusterError, CubeError, FullError, MarstfnError, StoreError, WeightsError
from pipeline.events import Listener, TileDone, TileFailed
from pipeline.grid import Tile

log = logging.getLogger(__name__)

AHEAD = 2
"""Futures beyond the slots: enough that no worker waits, few enough that none hoards (distributed#8177)."""
RETRIES = 2
"""Further attempts at a tile that failed."""
IDLE = 60.0
"""Seconds without a worker for the stage after which it is given up, unless Settings.worker_patience says more."""
FETCH = 10.0
"""Seconds in which the small values of ended tiles must come: with a worker that died they come when the tile is made
again, and until then the others must be looked after."""
LOOK = 1.0
"""Seconds between two looks at which workers there are: each costs as much as a tile that does nothing."""
HOPELESS = (CubeError, WeightsError, StoreError, CatalogError)
"""Errors that a second attempt cannot cure."""


Outcome = tuple[Any, BaseException | None]
"""What a tile gave, and None; or None, and the error it ended in."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A tile that failed for good."""

    tile: str
    error: str


def map_tiles(
    client: Client,
    stage: str,
    function: Callable[..., Any],
    tiles: Sequence[Tile],
    arguments: tuple[Any, ...] = (),
    *,
    resource: str,
    listener: Listener,
    retries: int = RETRIES,
    idle: float | None = None,
) -> tuple[list[Any], list[Failure]]:
    """Run `function(tile.row, tile.col, *arguments)` for every tile on workers that offer `resource`.

    At most slots + 2 futures exist at a time; a finished one is released at once. A tile that fails is tried again
    `retries` times, then reported as TileFailed while the others go on. Whatever ends this call early cancels what
    is under way. Raises ClusterError where no worker offers the resource for `idle` seconds (None: as the settings
    have it) or the scheduler is lost, and the FullError of a tile that finds no room, at once.
    """
    if idle is None:
        idle = max(IDLE, settings.load().worker_patience or 0.0)
    run = uuid.uuid4().hex[:6]  # a shared scheduler may still know a tile of the same name from another run
    waiting = [(tile, 0) for tile in reversed(tiles)]
    running: dict[Future, tuple[Tile, int, float]] = {}
    ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
    results: list[Any] = []
    failures: list[Failure] = []
    served = looked = time.monotonic()
    room = slots(client, resource)
    try:
        while waiting or running:
            require_scheduler(client)
            if time.monotonic() - looked > LOOK:
                room, looked = slots(client, resource), time.monotonic()
            if room:
                served = time.monotonic()
            elif time.monotonic() - served > idle:
                raise ClusterError(
                    f"stage {stage}: no worker has offered the resource {resource} for {idle:g} s; "
                    f"{len(waiting) + len(running)} tiles are left. Start one (dask worker ADDRESS --nthreads 1 "
                    f"--resources {resource}=1) and run the same command again: finished tiles are kept"
                )
            # also without a worker: tasks that wait are what adaptive scaling starts one for
            while waiting and len(running) < room + AHEAD:
                tile, attempt = waiting.pop()
                key = f"{stage}-{tile.name}-{run}" + (f"-{attempt + 1}" if attempt else "")
                future = client.submit(
                    function, tile.row, tile.col, *arguments, key=key, resources={resource: 1}, pure=False, retries=0
                )
                running[future] = (tile, attempt, time.monotonic())
                future.add_done_callback(ended.put)
            for future, (value, error) in _ended(client, ended):
                tile, attempt, began = running.pop(future)
                if error is None:
                    results.append(value)
                    listener(_event(stage, tile, value, time.monotonic() - began))
                elif attempt < retries and not isinstance(error, HOPELESS):
                    log.warning("stage %s, tile %s, attempt %d: %s", stage, tile.name, attempt + 1, _said(error))
                    waiting.append((tile, attempt + 1))
                else:
                    failures.append(Failure(tile.name, _said(error)))
                    log.error("stage %s, tile %s: %s", stage, tile.name, _said(error))
                    listener(TileFailed(stage, tile.name, _said(error)))
                    if isinstance(error, FullError):  # the next tile would be read in vain
                        raise error
                future.release()
    finally:
        if running:
            client.cancel(list(running), force=True)
    return results, failures


def _ended(client: Client, ended: queue.SimpleQueue[Future]) -> list[tuple[Future, Outcome]]:
    """What has ended since the last call, after at most LOOK seconds: now and then the cluster must be looked at."""
    found = []
    try:
        found.append(ended.get(timeout=LOOK))
        while True:
            found.append(ended.get_nowait())
    except queue.Empty:
        pass
    # one whose worker died with the result is under way again, and will be heard of again
    lost = [future for future in found if not future.done()]
    heard = _outcomes(client, [future for future in found if future not in lost])
    for future in (*lost, *(future for future, outcome in heard if outcome is None)):
        future.add_done_callback(ended.put)
    return [(future, outcome) for future, outcome in heard if outcome is not None]


def _outcomes(client: Client, futures: Sequence[Future]) -> list[tuple[Future, Outcome | None]]:
    """Each future with what it gave: values are fetched together, one by one only where that fails; None where nothing
    comes in time."""
    good = [future for future in futures if future.status == "finished"]
    try:
        values = client.sync(_soon, client, good) if good else ()
        fetched = {future: (value, None) for future, value in zip(good, values, strict=True)}
    except TimeoutError:
        return [(future, None if future in good else _outcome(client, future)) for future in futures]
    except Exception:
        fetched = {}
    return [(future, fetched.get(future) or _outcome(client, future)) for future in futures]


async def _soon(client: Client, futures: Sequence[Future]) -> Sequence[Any]:
    """The values of tasks that are done. Raises TimeoutError after FETCH seconds; what was begun is not broken off,
    for Dask leaves parts of itself behind then, whose errors nobody takes."""
    coming = asyncio.ensure_future(client.gather(list(futures), asynchronous=True))
    coming.add_done_callback(lambda task: task.cancelled() or task.exception())
    found: Sequence[Any] = await asyncio.wait_for(asyncio.shield(coming), FETCH)
    return found


def _outcome(client: Client, future: Future) -> Outcome | None:
    """The value of a task, or the error it ended in; None where neither comes in time."""
    if future.status == "cancelled":
        return None, ClusterError("the task was cancelled on the scheduler")
    try:
        error = future.exception(timeout=FETCH)
        assert error is None or isinstance(error, BaseException)
        return (None, error) if error is not None else (client.sync(_soon, client, [future])[0], None)
    except TimeoutError:
        return None


def _said(error: BaseException) -> str:
    if isinstance(error, MarstfnError):
        return str(error)
    if isinstance(error, distributed.KilledWorker):
        return f"its worker process died {error.allowed_failures + 1} times (out of memory?): {error}"
    return f"{type(error).__name__}: {error}"


def _event(stage: str, tile: Tile, result: Any, seconds: float) -> TileDone:
    took = getattr(result, "seconds", seconds)
    return TileDone(stage, tile.name, took, dict(getattr(result, "timings", {})))
