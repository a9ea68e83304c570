"""The memory of a worker: what it may take at the most for a tile, and a refusal where a worker has less.

Every term is bytes counted from the arrays that a stage holds; none grows with the area, the length of the year beyond
one time block, or the time that a worker has been at work (`python -m benchmarks memory` holds them to measured peaks).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from marstfn.bands import BANDS, FINE
from pipeline import cluster, cube, units
from pipeline.cluster import GPU, IO
from pipeline.cube import RUN
from pipeline.days import KEPT
from pipeline.errors import ClusterError
from pipeline.grid import Grid
from pipeline.plan import Plan
from pipeline.settings import THREADS

MB = 1_000_000
READER, FUSER = 290 * MB, 560 * MB
"""Processes with everything imported that the stage needs; the fusing one with weights and Numba's code, too."""
GDAL = 64 * MB
"""GDAL's cache of blocks, as the embedded cluster sets it (GDAL_CACHEMAX)."""
THREAD = 6 * MB
"""Of a thread that reads: its GDAL context, and buffers of the files it has open."""
NETWORK = 27 * MB
"""What one patch of 60 px in a batch adds while the network runs (measured, 64 features)."""
PIXEL = 2 * len(BANDS)
"""Of a pixel of stored reflectance, int16."""
LAYERS = PIXEL + 7
"""Of a pixel of the fused cube: reflectance, quality, age, coherence, uncertainty."""
ENCODING = 6
"""Of a pixel of one variable while its shard is written: copy, compressed chunks, shard."""
RETAINED = int(cluster.ALLOCATOR["MALLOC_ARENA_MAX"]) * int(cluster.ALLOCATOR["MALLOC_TRIM_THRESHOLD_"])
"""Of free memory that the allocator holds, in each of its arenas, before it gives some back to the system."""
SLACK = 1.2
"""What the allocator keeps of arrays that are gone, over those that are there."""
KILLED = 0.95
"""Share of its limit at which Dask ends a worker (distributed.worker.memory.terminate)."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The most that a worker takes, in bytes by what takes it."""

    stage: str
    process: int
    """Resident with nothing to do."""
    work: Mapping[str, int]
    """For one tile (or reading unit) under way."""
    slots: int = 1
    """Tiles under way at once."""

    @property
    def total(self) -> int:
        """Bytes."""
        return self.process + RETAINED + int(SLACK * self.slots * sum(self.work.values()))

    @property
    def megabytes(self) -> float:
        return self.total / MB


def reading(plan: Plan, *, slots: int = 1, threads: int = THREADS, side: int = 1) -> Bound:
    """The bound of a worker that reads `slots` units of `side` x `side` tiles of `plan` at once, with `threads` threads
    in all."""
    tile = _side(plan.grid)
    days = cube.input_length(plan, cube.SENTINEL2)
    window = min(side * tile, max(plan.grid.shape(FINE))) ** 2
    work = {
        "unit": units.unit_bytes(plan, side, threads=0),
        "encoding": days * tile**2 * ENCODING,
        "warping": threads * window * units.SCRATCH // slots,
    }
    return Bound("ingest", idle(threads), work, slots)


def idle(threads: int) -> int:
    """Bytes of a reading worker with `threads` threads before it reads."""
    return READER + GDAL + threads * THREAD


def fusing(plan: Plan, *, slots: int = 1) -> Bound:
    """The bound of a worker that fuses `slots` tiles of `plan` at once."""
    patch = max((ref.patch for ref in plan.weights), default=60)
    context = any(ref.context for ref in plan.weights)
    blocks = min(2, len(cube.fused_blocks(plan)))
    one = fusing_of(plan.grid, plan.options.time_shard, plan.options.batch, patch, context, blocks)
    return replace(one, slots=slots)


def fusing_of(
    grid: Grid, time_shard: int, batch: int, patch: int = 60, context: bool = False, blocks: int = 2
) -> Bound:
    """The same from what decides it: `patch` the side of the model window in px, `context` whether the network sees
    Sentinel-2 of both sides of the date, `blocks` of dates in memory: one in the making, one on its way to the store,
    where the year has more than one."""
    side = _side(grid)
    window = (side + 2 * patch) ** 2
    block = time_shard * side**2
    dates = 6 + (10 if context else 0)  # reference, Landsat brought up, prediction, weights, sums, copies
    work = {
        "block": blocks * block * LAYERS,
        "encoding": block * ENCODING,
        # a few runs of days are kept as they are stored, and their masks; Landsat's are a ninth, and its pan
        "days": RUN * window * ((KEPT + 1) * (PIXEL + 1) + PIXEL // 9 + 1),
        "date": window * 4 * len(BANDS) * dates,
        "network": int(NETWORK * batch * (patch / 60) ** 2),
    }
    return Bound("fuse", FUSER, work)


def require(plan: Plan, workers: Iterable[Mapping[str, Any]], *, threads: int = THREADS) -> None:
    """Raise ClusterError where a worker has less memory than a tile of `plan` may take, before anything is read.
    Larger reading units are made only where there is room for them.

    `workers`: as Dask's scheduler describes them (name, resources, memory_limit; 0 stands for no limit).
    """
    known = list(workers)
    reader = IO if any(w["resources"].get(IO) for w in known) else GPU
    for worker in known:
        limit = worker.get("memory_limit") or 0
        at_once = int(worker["resources"].get(GPU) or 0)
        needs = [fusing(plan, slots=at_once)] if at_once else []
        if worker["resources"].get(reader):
            needs.append(reading(plan, slots=int(worker["resources"][reader]), threads=threads))
        worst = max(needs, key=lambda b: b.total, default=None)
        if worst is not None and limit and worst.total > KILLED * limit:
            raise ClusterError(_refusal(plan, worker, worst, limit))


def _refusal(plan: Plan, worker: Mapping[str, Any], bound: Bound, limit: int) -> str:
    at_once = f", {bound.slots} at once" if bound.slots > 1 else ""
    smaller = [s for s in (480, 240, 120, 60) if s < _side(plan.grid)]
    tile = f" a smaller --tile ({smaller[0]}) or" if smaller else ""
    return (
        f"tiles of {plan.grid.tile_px} px with {plan.options.time_shard} dates in a shard may take "
        f"{bound.megabytes:,.0f} MB in stage {bound.stage}{at_once}, and worker {worker.get('name')} is ended at "
        f"{KILLED * limit / MB:,.0f} MB (memory limit {limit / MB:,.0f} MB); nothing was read. Give the worker more "
        f"(dask worker --memory-limit, MARSTFN_MEMORY_LIMIT for the embedded cluster), or plan into another --store "
        f"with{tile} a smaller --batch"
    )


def _side(grid: Grid) -> int:
    """Of the largest tile in 10 m pixels."""
    return min(grid.tile_px, max(grid.shape(FINE)))
