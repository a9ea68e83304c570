"""A worker's memory: flat along a row of tiles, and under the bound that the plan prints."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dask
import numpy as np

from benchmarks.measure import Figure, Table
from benchmarks.slopes import figures, trend
from pipeline import cluster, memory
from pipeline.ledger import Stage

SEED, WARM = 3, 100
"""Of the tiles' order; tiles at the beginning that do not count: pools, caches and arenas are filled with them, and
after some 80 a table of 2 MB is made, once."""
WORKER = {
    **{str(k): str(v) for k, v in dask.config.get("distributed.nanny.pre-spawn-environ").items()},
    **cluster.ALLOCATOR,
    **cluster.WAITING,
    "GDAL_CACHEMAX": "64",
    "MARSTFN_IO_THREADS": "8",
    "MARSTFN_UNIT_MB": "0",
}
"""What a process of a cluster is started with; eight threads read."""
COUNTED = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
)  # fmt: skip
"""Fields of glibc's `struct mallinfo2`, in its order."""
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True, slots=True)
class Run:
    """One stage over some tiles in a process of its own; megabytes (10^6 bytes)."""

    peaks: tuple[float, ...]
    """The most that the process held during each tile."""
    resident: tuple[float, ...]
    """What it held after each."""
    allocated: tuple[float, ...]
    """What of it was allocated then, by the allocator's own count (glibc; else empty)."""
    bound: float


def tables(quick: bool) -> list[Table]:
    """Memory of both stages along a row of tiles, and at its peak for two tile sides and two lengths of year."""
    sizes: Sequence[tuple[int, tuple[int, int]]] = (
        ((60, (6, 2)),) if quick else ((240, (36, 12)), (240, (72, 24)), (480, (36, 12)), (480, (72, 24)))
    )
    return [_row(4 if quick else 18, 12 if quick else 200), _peaks(sizes, 8 if quick else 48)]


def _row(side: int, tiles: int) -> Table:
    shown: list[Figure] = []
    warm = WARM if tiles > WARM else 4
    with tempfile.TemporaryDirectory() as folder:
        for stage in ("ingest", "fuse"):
            run = measured(folder, stage, (side, side), 60, (4, 2), 48, tiles + warm, tiles + warm + side + 2)
            shown += figures(f"{stage}, peak of a tile", trend(run.peaks[warm:]), "MB", 0.1)
            for what, values in (("resident", run.resident), ("allocated", run.allocated)):
                if values:
                    found = trend(values[warm:])
                    shown.append(
                        Figure(f"{stage}, {what} after a tile, gain", (found.low, found.gain, found.high), "MB")
                    )
    notes = (
        f"{tiles} tiles of 60 px in a row in one process, {warm} more before them not counted; 4 + 2 dates, additive; "
        "slope by Theil and Sen, interval by blocked bootstrap",
        "peak and resident as the kernel counts them, in a worker's settings; allocated: by the allocator's own count",
    )
    return Table("Memory along a run", tuple(shown), notes)


def _peaks(sizes: Sequence[tuple[int, tuple[int, int]]], shard: int) -> Table:
    shown: list[Figure] = []
    for side, days in sizes:
        with tempfile.TemporaryDirectory() as folder:
            for stage in ("ingest", "fuse"):
                run = measured(folder, stage, (1, 2), side, days, shard, 2, 2)
                what = f"{stage}, tiles of {side} px, {sum(days)} dates: peak"
                shown.append(Figure(what, run.peaks, "MB", f"<= {run.bound:.0f}", max(run.peaks) <= run.bound))
    notes = (f"time shard {shard}, method additive; the bound is that of `marstfn plan` without the network's part",)
    return Table("Peak memory of a worker and its bound", tuple(shown), notes)


def measured(
    folder: str, stage: Stage, tiles: tuple[int, int], side: int, days: tuple[int, int], shard: int, count: int,
    ready: int,
) -> Run:  # fmt: skip
    """`stage` over the first `count` of the tiles, in a process with a worker's settings; ingest makes `ready`
    tiles ready, so that each that is fused has its neighbours."""
    number = count if stage == "fuse" else min(ready, tiles[0] * tiles[1])
    arguments = json.dumps([folder, stage, tiles, side, days, shard, number])
    done = subprocess.run(
        [sys.executable, "-c", "from benchmarks import memory; memory.child()", arguments],
        env={**os.environ, **WORKER}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{stage} over {number} tiles of {side} px failed: {done.stderr[-2000:]}")
    peaks, resident, allocated, bound = json.loads(done.stdout.splitlines()[-1])
    return Run(tuple(peaks), tuple(resident), tuple(a for a in allocated if not np.isnan(a)), bound)


def child() -> None:
    """What the process does: print peaks, resident and allocated sizes and the bound as one line of JSON."""
    import pipeline.workers

    folder, stage, (rows, columns), side, days, shard, count = json.loads(sys.argv[1])
    if stage == "fuse":
        import pipeline.fuse  # noqa: F401
    from benchmarks import scenery

    made = scenery.made(Path(folder), rows, columns, side, tuple(days), time_shard=shard, batch=1)
    work = made.ingest if stage == "ingest" else made.fuse
    found = np.full((3, count), np.nan)  # made beforehand: lists would grow with what is measured
    tiles = list(made.plan.grid.tiles())
    # in a random order: in the plane's own, a later row lies across more blocks of the files, and seems to take more
    for k, place in enumerate(np.random.default_rng(SEED).permutation(count)):
        gc.collect()
        _forget_peak()
        work(tiles[place])
        found[:, k] = _size("VmHWM"), _size("VmRSS"), _allocated()
    if stage == "ingest":
        bound = memory.reading(made.plan, threads=8)
    else:
        bound = memory.fusing(made.plan)
        bound = memory.Bound(bound.stage, bound.process, {k: v for k, v in bound.work.items() if k != "network"})
    sys.stdout.write(f"\n{json.dumps([*found.tolist(), bound.megabytes])}\n")


def _forget_peak() -> None:
    """Let the kernel count the peak anew (Linux; where it may not, peaks are those since the beginning)."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return


class _Count(ctypes.Structure):
    """What glibc counts of its allocator."""

    _fields_ = [(name, ctypes.c_size_t) for name in COUNTED]


def _allocated() -> float:
    """Megabytes that the C allocator has handed out and not got back; NaN where it does not count."""
    ask = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if ask is None:
        return float("nan")
    gc.collect()
    ask.restype = _Count
    found = ask()
    return float(found.uordblks + found.hblkhd) / 1e6


def _size(name: str) -> float:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024 / 1e6
