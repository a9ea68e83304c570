"""What a tile costs beside its work: ten thousand that do nothing, through the window that real ones go through."""

from __future__ import annotations

import os
import time
from itertools import pairwise

from benchmarks.measure import Figure, Table, at_most
from pipeline import cluster, tasks
from pipeline.cluster import GPU, IO
from pipeline.events import Event, TileDone
from pipeline.grid import Grid
from pipeline.ingest import TileResult
from pipeline.settings import Settings


def nothing(row: int, col: int, url: str, stamp: str) -> TileResult:
    """A tile without work; its arguments and its result are as large as those of real ones."""
    return TileResult("fuse", f"r{row:03d}c{col:03d}", 0.0, {"read": 0.0, "predict": 0.0, "write": 0.0, "check": 0.0})


def tables(quick: bool) -> list[Table]:
    """Milliseconds a tile on the embedded cluster, by resource, in slices of the run."""
    side, slices = (10, 2) if quick else (100, 10)
    tiles = list(Grid(32650, 600_000, 5_400_000, side * 10, side * 10, 60).tiles())
    shown: list[Figure] = []
    with cluster.connect(defaults=Settings()) as client:
        client.gather(client.map(_ready, range(16), pure=False))
        for resource, count in ((IO, len(tiles)), (GPU, len(tiles) // 10)):
            marks: list[float] = []

            def listen(event: Event, marks: list[float] = marks) -> None:
                if isinstance(event, TileDone):
                    marks.append(time.perf_counter())

            start, used = time.perf_counter(), time.process_time()
            where = ("s3://bucket/prefix/name-2023", "0" * 64)
            results, failed = tasks.map_tiles(
                client, "nothing", nothing, tiles[:count], where, resource=resource, listener=listen
            )
            spent = time.process_time() - used
            if failed or {r.tile for r in results} != {t.name for t in tiles[:count]}:
                raise RuntimeError(f"{len(results)} of {count} tiles were done, {len(failed)} failed: {failed[:1]}")
            step = count // slices
            ends = [start, *marks[step - 1 :: step]]
            each = [1e3 * (b - a) / step for a, b in pairwise(ends)]
            slots = cluster.slots(client, resource)
            shown.append(at_most(f"{count} tiles on {slots} slots of {resource}, a tile", each, 10.0, "ms"))
            shown.append(Figure("of it processor time of client and scheduler", (1e3 * spent / count,), "ms"))
    notes = (
        f"the least..most are those of {slices} equal slices of the run; client and scheduler share a process, as in "
        f"the embedded cluster; load {os.getloadavg()[0]:.1f} at the end",
    )
    return [Table("Scheduling tiles that do nothing", tuple(shown), notes)]


def _ready(_: int) -> None:
    """Import in each worker what the tiles need."""
    time.sleep(0.05)
