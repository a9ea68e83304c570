"""Whether a tile takes longer the more tiles there have been, and what a second worker brings."""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks import scenery
from benchmarks.measure import Figure, Table, at_least, ratios
from benchmarks.slopes import figures
from pipeline import cluster, tasks
from pipeline.cluster import GPU
from pipeline.events import silent
from pipeline.grid import Grid, Tile
from pipeline.settings import Settings

SEED = 3
WARM = 10
"""Tiles at the beginning that do not count: imports, templates, threads."""


def tables(quick: bool) -> Iterator[Table]:
    """Time per tile along a run of both stages; two single-threaded workers beside one. Each is told when it is
    there: the first takes minutes."""
    yield _along(5 if quick else 20)
    if not quick:
        yield _workers(24, 3)


def _along(side: int) -> Table:
    shown: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        made = scenery.made(Path(folder), side, side, 60, (4, 2), batch=1)
        # in a random order: tiles at the plane's rim have smaller windows, and must not all come at the ends
        tiles = list(np.random.default_rng(SEED).permutation(np.array(list(made.plan.grid.tiles()), object)))
        for stage, work in (("ingest", made.ingest), ("fuse", made.fuse)):
            for tile in tiles[:WARM]:
                work(tile)
            wall, spent = _timed(work, tiles)
            shown.append(Figure(f"{stage}, a tile", wall, "ms"))
            shown += figures(f"{stage}, wall clock", wall, "ms", 0.1)
            shown += figures(f"{stage}, processor time", spent, "ms", 0.1)
        counted = scenery.finished(made, "fuse")
    notes = (
        f"{side * side} tiles of 60 px one after another in one process, in random order; 4 + 2 dates from the same "
        "files, additive; slope by Theil and Sen, interval by blocked bootstrap",
        f"{counted} tiles of the second stage are in the ledger",
    )
    return Table("Time of a tile along a run", tuple(shown), notes)


def _timed(work: Callable[[Tile], object], tiles: list[Tile]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Milliseconds of wall clock and of the process's processors for each tile."""
    wall, spent = [], []
    gc.collect()
    for tile in tiles:
        start, used = time.perf_counter(), time.process_time()
        work(tile)
        wall.append(1e3 * (time.perf_counter() - start))
        spent.append(1e3 * (time.process_time() - used))
    return tuple(wall), tuple(spent)


def busy(row: int, col: int, steps: int) -> float:
    """A tile that computes on one core."""
    values = np.linspace(0.1, 1.0, 60_000, dtype=np.float32)
    for _ in range(steps):
        values = np.sqrt(values * values + np.float32(1e-3))
    return float(values[row + col])


def _workers(tiles: int, rounds: int) -> Table:
    """Seconds that `tiles` take on embedded clusters of one and of two fusing workers, in turn."""
    every = list(Grid(32650, 600_000, 5_400_000, tiles * 10, 10, 60).tiles())
    steps, taken, load = _steps(0.25), dict[int, list[float]]({1: [], 2: []}), []
    for turn in range(rounds):
        for count in (1, 2) if turn % 2 == 0 else (2, 1):
            with cluster.connect(defaults=Settings(workers=count)) as client:
                # every worker has imported what it needs before the clock starts
                tasks.map_tiles(client, "warm", busy, every[:4], (steps,), resource=GPU, listener=silent)
                load.append(os.getloadavg()[0])
                start = time.perf_counter()
                results, failed = tasks.map_tiles(client, "busy", busy, every, (steps,), resource=GPU, listener=silent)
                taken[count].append(time.perf_counter() - start)
                if failed or len(results) != tiles:
                    raise RuntimeError(f"{len(failed)} of {tiles} tiles failed: {failed[:1]}")
    gain = at_least("tiles a second of two workers over those of one", ratios(taken[1], taken[2]), 1.7)
    shown = [Figure(f"{tiles} tiles on {n} worker{'s' * (n > 1)}", tuple(taken[n]), "s") for n in (1, 2)]
    notes = (
        f"each tile {steps} rounds of numpy on one core, which let go of the interpreter's lock and take it again; "
        f"{os.cpu_count()} processors, load {min(load):.1f}..{max(load):.1f}: with more than 0 from elsewhere two "
        "workers cannot have two cores",
    )
    return Table("Two single-threaded workers", (gain, *shown), notes)


def _steps(seconds: float) -> int:
    """Rounds of `busy` that take about so long on one core here."""
    start = time.process_time()
    busy(0, 0, 500)
    return max(1, int(500 * seconds / (time.process_time() - start)))
