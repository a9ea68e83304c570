"""Tiles as futures: a bounded window of them, each with a name a person can read, each tried again if it fails."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import distributed
from distributed import CancelledError, Client, Future

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
"""Seconds without a worker for the stage after which it is given up."""
HOPELESS = (CubeError, WeightsError, StoreError, CatalogError)
"""Errors that a second attempt cannot cure."""


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
    idle: float = IDLE,
) -> tuple[list[Any], list[Failure]]:
    """Run `function(tile.row, tile.col, *arguments)` for every tile on workers that offer `resource`.

    At most slots + 2 futures exist at a time; a finished one is released at once. A tile that fails is tried again
    `retries` times, then reported as TileFailed while the others go on. Whatever ends this call early cancels what
    is under way. Raises ClusterError where no worker offers the resource for `idle` seconds or the scheduler is lost,
    and the FullError of a tile that finds no room, at once.
    """
    run = uuid.uuid4().hex[:6]  # a shared scheduler may still know a tile of the same name from another run
    waiting = [(tile, 0) for tile in reversed(tiles)]
    running: dict[Future, tuple[Tile, int, float]] = {}
    results: list[Any] = []
    failures: list[Failure] = []
    served = time.monotonic()
    try:
        while waiting or running:
            require_scheduler(client)
            room = slots(client, resource)
            if room:
                served = time.monotonic()
            elif time.monotonic() - served > idle:
                raise ClusterError(
                    f"stage {stage}: no worker has offered the resource {resource} for {idle:g} s; "
                    f"{len(waiting) + len(running)} tiles are left. Start one (dask worker ADDRESS --nthreads 1 "
                    f"--resources {resource}=1) and run the same command again: finished tiles are kept"
                )
            while waiting and len(running) < room + AHEAD and room:
                tile, attempt = waiting.pop()
                key = f"{stage}-{tile.name}-{run}" + (f"-{attempt + 1}" if attempt else "")
                future = client.submit(
                    function, tile.row, tile.col, *arguments, key=key, resources={resource: 1}, pure=False, retries=0
                )
                running[future] = (tile, attempt, time.monotonic())
            for future in _finished(client, running):
                tile, attempt, began = running.pop(future)
                error = _outcome(future, results)
                if error is None:
                    listener(_event(stage, tile, results[-1], time.monotonic() - began))
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


def _finished(client: Client, running: dict[Future, tuple[Tile, int, float]]) -> list[Future]:
    """Futures that have ended, after at most two seconds: now and then the cluster itself must be looked at."""
    if not running:
        time.sleep(0.2)
        return []
    try:
        with client.as_current():
            distributed.wait(list(running), timeout=2, return_when="FIRST_COMPLETED")
    except TimeoutError:
        return []
    except CancelledError:  # some were; which, their status says
        pass
    return [f for f in list(running) if f.done()]


def _outcome(future: Future, results: list[Any]) -> BaseException | None:
    """None and the result appended, or the error the task ended in."""
    if future.status == "finished":
        results.append(future.result())
        return None
    if future.status == "cancelled":
        return ClusterError("the task was cancelled on the scheduler")
    error = future.exception()
    assert isinstance(error, BaseException)
    return error


def _said(error: BaseException) -> str:
    if isinstance(error, MarstfnError):
        return str(error)
    if isinstance(error, distributed.KilledWorker):
        return f"its worker process died {error.allowed_failures + 1} times (out of memory?): {error}"
    return f"{type(error).__name__}: {error}"


def _event(stage: str, tile: Tile, result: Any, seconds: float) -> TileDone:
    took = getattr(result, "seconds", seconds)
    return TileDone(stage, tile.name, took, dict(getattr(result, "timings", {})))
