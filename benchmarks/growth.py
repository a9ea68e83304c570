"""Whether a tile takes longer the more tiles there have been, and what a second worker brings."""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from benchmarks import scenery
from benchmarks.measure import Figure, Table, at_least, ratios
from benchmarks.memory import WORKER
from benchmarks.slopes import Trend, common, figures, gain
from pipeline import cluster, tasks
from pipeline.cluster import GPU
from pipeline.events import silent
from pipeline.grid import Grid, Tile
from pipeline.ledger import Stage
from pipeline.settings import Settings

SEED = 3
WARM = 10
"""Tiles at the beginning of a process that do not count: imports, templates, threads."""
STAGES: tuple[Stage, ...] = ("ingest", "fuse")
_work: Callable[[Tile], object]
_tiles: list[Tile]
"""Of a process that does tiles: its stage, and all tiles of its grid."""


@dataclass(frozen=True, slots=True)
class Ages:
    """How old the processes grow that are compared, in tiles."""

    side: int = 20
    """Of the square of tiles that the old one does."""
    settled: int = 100
    """Tiles that it does before, and that do not count: heaps and tables are filled with them."""
    young: int = 40
    """Tiles after which the process beside it is a new one."""
    rounds: int = 2
    """Old processes: one is a little slower or faster than another, and may drift by itself."""


def tables(quick: bool) -> Iterator[Table]:
    """Time per tile along a run of both stages; two single-threaded workers beside one. Each is told when it is
    there: the first takes minutes."""
    yield _along(Ages(4, settled=10, young=4, rounds=1) if quick else Ages())
    if not quick:
        yield _workers(24, 3)


def _along(ages: Ages) -> Table:
    shown: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        # in a random order: tiles at the plane's rim have smaller windows, and must not all come at the ends
        order = np.random.default_rng(SEED).permutation(ages.side**2)
        for stage in STAGES:
            taken = np.stack([beside(Path(folder) / str(k), stage, order, ages) for k in range(ages.rounds)])
            for who, name in enumerate(("old", "young")):
                shown.append(Figure(f"{stage}, a tile of the {name} process", tuple(taken[:, who, :, 0].ravel()), "ms"))
            paces = [gain(young) / np.median(young) for young in taken[:, 1, :, 0]]
            shown.append(Figure(f"{stage}, gain of the young process: the machine's pace", tuple(paces)))
            for column, what in enumerate(("wall clock", "processor time")):
                shown += figures(f"{stage}, {what}, old / young", ageing(taken[..., column], ages.young), "", 0.1)
    notes = (
        f"{ages.side**2} tiles of 60 px one after another in one process, in random order, {ages.settled} more before "
        "them not counted; 4 + 2 dates from the same files, additive",
        f"between its tiles a process no older than {WARM + ages.young} tiles does the same; a sample is the median "
        f"over {ages.young} tiles of old / young; one slope for {ages.rounds} old processes, interval by Student's t",
    )
    return Table("Time of a tile along a run", tuple(shown), notes)


def ageing(taken: NDArray[np.float64], young: int) -> Trend:
    """What a process slows down from the first to the last of its tiles, in tiles' times of the process beside it, by
    times (round, old and young, tile); that process is a new one after every `young` tiles."""
    ratios = taken[:, 0] / taken[:, 1]
    starts = range(0, ratios.shape[1], young)
    return common(np.stack([np.median(ratios[:, k : k + young], axis=1) for k in starts], axis=1))


def beside(folder: Path, stage: Stage, order: NDArray[np.int64], ages: Ages) -> NDArray[np.float64]:
    """Milliseconds (old and young, tile, wall clock and processors) of a process that does all tiles and, between
    them, of one that another takes the place of after every `ages.young`."""
    taken = np.empty((2, len(order), 2))
    with _process(folder / "old", stage, ages.side, order, ages.settled) as old:
        for first in range(0, len(order), ages.young):
            with _process(folder / "young", stage, ages.side, order, WARM) as young:
                for k in range(first, min(first + ages.young, len(order))):
                    for who in (0, 1) if k % 2 == 0 else (1, 0):
                        taken[who, k] = (old, young)[who].submit(_tile, int(order[k])).result()
    return taken


@contextmanager
def _process(
    folder: Path, stage: Stage, side: int, order: NDArray[np.int64], warm: int
) -> Iterator[ProcessPoolExecutor]:
    """A process with a worker's settings that has done `warm` tiles of `stage` in the store of `folder`."""
    # both processes begin with the same few: what is then written once more, is so by both
    few = [int(k) for k in order[-WARM:]]
    first = [few[k % len(few)] for k in range(warm)]
    with ProcessPoolExecutor(1, get_context("spawn"), _begin, (folder, stage, side, first)) as pool:
        with patch.dict(os.environ, WORKER):  # a process is started when it is first asked for something
            pool.submit(os.getpid).result()
        yield pool


def _begin(folder: Path, stage: Stage, side: int, first: list[int]) -> None:
    """What a process does before it is asked for a tile."""
    global _work, _tiles
    made = scenery.made(folder, side, side, 60, (4, 2), batch=1)
    _work, _tiles = made.ingest if stage == "ingest" else made.fuse, list(made.plan.grid.tiles())
    for k in first:
        _work(_tiles[k])
    gc.collect()


def _tile(k: int) -> tuple[float, float]:
    """Milliseconds of wall clock and of the process's processors that a tile takes in this process."""
    start, used = time.perf_counter(), time.process_time()
    _work(_tiles[k])
    return 1e3 * (time.perf_counter() - start), 1e3 * (time.process_time() - used)


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
    ahead = at_least("tiles a second of two workers over those of one", ratios(taken[1], taken[2]), 1.7)
    shown = [Figure(f"{tiles} tiles on {n} worker{'s' * (n > 1)}", tuple(taken[n]), "s") for n in (1, 2)]
    notes = (
        f"each tile {steps} rounds of numpy on one core, which let go of the interpreter's lock and take it again; "
        f"{os.cpu_count()} processors, load {min(load):.1f}..{max(load):.1f}: with more than 0 from elsewhere two "
        "workers cannot have two cores",
    )
    return Table("Two single-threaded workers", (ahead, *shown), notes)


def _steps(seconds: float) -> int:
    """Rounds of `busy` that take about so long on one core here."""
    start = time.process_time()
    busy(0, 0, 500)
    return max(1, int(500 * seconds / (time.process_time() - start)))
