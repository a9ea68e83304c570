"""Plans of many tiles and scenes, and what is asked of all tiles at the start and end of every stage."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import made
from benchmarks.measure import Figure, Table, at_most
from pipeline import job, ledger, pairing, planner, status, workers
from pipeline.harmonise import Harmonisation
from pipeline.ingest import ingest_fingerprint
from pipeline.plan import Plan
from pipeline.request import make as request
from pipeline.settings import Settings
from pipeline.store import Store

SIDE = 480


def tables(quick: bool) -> list[Table]:
    """Making a plan in a process of its own, and going on with it."""
    sizes = [(100, 60)] if quick else [(10_000, 1000), (10_000, 4000), (2500, 1000)]
    rounds = 1 if quick else 3
    return [_making(sizes, rounds), _going_on(*sizes[0])]


def _making(sizes: list[tuple[int, int]], rounds: int) -> Table:
    shown: list[Figure] = []
    for tiles, scenes in sizes:
        runs = [_child(tiles, scenes) for _ in range(rounds if (tiles, scenes) == sizes[0] else 1)]
        what = f"{runs[0]['tiles']} tiles, {scenes} scenes"
        shown.append(at_most(f"{what}: made and written", [r["seconds"] for r in runs], 30, "s"))
        shown.append(Figure(f"{what}: of it processor time", tuple(r["processor"] for r in runs), "s"))
        shown.append(at_most(f"{what}: peak of the whole process", [r["peak"] for r in runs], 1024, "MiB"))
    notes = (
        "a new process each time; items in the shape of Earth Search's, searched in a file; a scene is an item, "
        "several of which make a date; method additive",
    )
    return Table("Making a plan", tuple(shown), notes)


def _child(tiles: int, scenes: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", "from benchmarks import planning; planning.child()"]
        done = subprocess.run([*command, folder, str(tiles), str(scenes)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"no plan of {tiles} tiles and {scenes} scenes: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def child() -> None:
    """What the process does: make and write the plan, print what it took as one line of JSON."""
    folder, tiles, scenes = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    box = made.area(tiles, SIDE)
    catalog = made.catalogue(folder, scenes, box)
    start, used = time.perf_counter(), time.process_time()
    plan = planned(folder, catalog, box).plan
    told = {"seconds": time.perf_counter() - start, "processor": time.process_time() - used}
    # not getrusage: what the parent held when it forked counts there
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
    sys.stdout.write(f"\n{json.dumps(told | {'tiles': len(plan.tiles), 'peak': peak})}\n")


def planned(folder: Path, catalog: str, box: dict[str, Any]) -> job.Job:
    """The job over `box`, as a run would prepare it, in a store in `folder`."""
    asked = request(
        aoi=box, year=made.YEAR, catalog=catalog, method="additive", tile_px=SIDE, store=str(folder / "store")
    )
    # a whole zone is more than anyone is let plan by mistake
    wide = planner.read_area(asked, Settings(aoi_max_km2=1e7))
    return job.prepare(asked, area=wide)


def _going_on(tiles: int, scenes: int) -> Table:
    """What a resumed run asks of all tiles before the first of them is submitted."""
    from pipeline.fuse import fuse_fingerprint

    shown: list[Figure] = []

    def timed(what: str, work: Callable[[], object]) -> None:
        start = time.perf_counter()
        work()
        shown.append(Figure(what, (time.perf_counter() - start,), "s"))

    with tempfile.TemporaryDirectory() as name:
        folder, box = Path(name), made.area(tiles, SIDE)
        plan, store = (found := planned(folder, made.catalogue(folder, scenes, box), box)).plan, found.store
        timed("plan and items read again, as by a worker", lambda: workers.opened(store.url, workers.stamped(store)))
        prints: dict[str, str] = {}
        timed(
            "fingerprints of ingest", lambda: prints.update({t.name: ingest_fingerprint(plan, t) for t in plan.tiles})
        )
        timed("nothing done yet: tiles left", lambda: ledger.unfinished(store, "ingest", prints, {}))
        enter(store, plan, prints)
        timed("all done: tiles left", lambda: ledger.unfinished(store, "ingest", prints, {}))
        if ledger.unfinished(store, "ingest", prints, {}):
            raise RuntimeError("tiles that are in the ledger are to be made again")
        timed("pairs, from the counts of all tiles", lambda: workers.pairs(plan, store))
        timed("status", lambda: status.read(store))
        times = {s: [x.time for x in plan.of(s)] for s in ("landsat8", "sentinel2")}
        clear = [0.5] * len(times["sentinel2"])
        pairs = pairing.pair(times["landsat8"], times["sentinel2"], clear, plan.options)
        fits = Harmonisation("none", False, ())
        timed("fingerprints of fuse", lambda: [fuse_fingerprint(plan, t, fits, pairs) for t in plan.tiles])
        count = len(plan.tiles)
    notes = (f"{count} tiles, {scenes} scenes, a store on the disk, records of ordinary length",)
    return Table("Going on with a plan", tuple(shown), notes)


def enter(store: Store, plan: Plan, prints: dict[str, str]) -> None:
    """A record of the ingest stage for each tile, as long as real ones are; their shards are all `absent`."""
    stats = {sensor: [[120_000, 80_000, 30_400]] * len(plan.of(sensor)) for sensor in ("sentinel2", "landsat8")}
    objects = {f"inputs.zarr/sentinel2/{k:02}/c/0/0/0": ledger.ABSENT for k in range(40)}
    for name, made_from in prints.items():
        record = {"stage": "ingest", "tile": name, "fingerprint": made_from, "checksums": objects, "stats": stats}
        store.write(ledger.name("ingest", name), json.dumps(record).encode())
