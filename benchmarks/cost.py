"""What a plan says a year will take, and what it then takes; for the demo itself: `python -m benchmarks.cost`."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.measure import Figure, Table, machine, markdown
from flows import demo, work
from marstfn.simulate import Simulation
from pipeline import calibration, planner
from pipeline import request as requests
from pipeline.demo import products
from pipeline.demo.server import serve
from pipeline.events import Event, StageDone, silent
from pipeline.outlook import Outlook, outlook
from pipeline.request import Request
from pipeline.store import FUSED, INPUTS, Store

BOUND = 0.3
"""The estimate is to be within this part of what the run takes."""
STAGES = {"ingest": ("ingest",), "harmonise": ("audit", "register", "harmonise"), "fuse": ("fuse",)}
"""Parts of an estimate, and the stages of a run that they stand for."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One run beside what was said of it."""

    name: str
    told: Outlook
    seconds: float
    stages: dict[str, float]
    stored_mb: float


def tables(quick: bool) -> list[Table]:
    """The estimate by calibration, then, in another store, the one by what the first run came to."""
    side, step = (10, 6) if quick else (30, 1)
    made = trials(side, step, tile_px=60 if quick else 120, quick=quick, runs=1 if quick else 2)
    return [_table(made, side, step)]


def trials(cells: int, step: int, *, tile_px: int, quick: bool = False, runs: int = 2) -> list[Trial]:
    """Runs of a simulated year, every `step`-th acquisition over `cells` x `cells` cells, each told beforehand."""
    grid = replace(demo.GRID, columns=cells, rows=cells, tile_px=tile_px)
    simulation = Simulation(demo.SEED, demo.YEAR, grid.epsg)
    with tempfile.TemporaryDirectory(prefix="marstfn-cost-") as folder, _cache(Path(folder) / "cache", quick):
        products.write_catalogue(
            simulation, grid, Path(folder) / "scenes", acquisitions=simulation.acquisitions()[::step]
        )
        aoi = demo.write_aoi(Path(folder), grid)
        with serve(Path(folder) / "scenes", port=0) as served:
            out = []
            for k in range(runs):
                name = "by calibration" if k == 0 else f"by {k} earlier run{'s' if k > 1 else ''}"
                given = demo.asked_for(f"simulated@{served.url}") | {"tile_px": tile_px}
                out.append(_trial(name, requests.make(aoi=str(aoi), store=f"{folder}/run{k}", **given)))
            return out


def _trial(name: str, request: Request) -> Trial:
    plan, items = planner.make_plan(request, area=planner.read_area(request), listener=silent)
    told = outlook(plan, items, calibration.rates(plan))
    stages: dict[str, float] = {}

    def hear(event: Event) -> None:
        if isinstance(event, StageDone):
            stages[event.stage] = stages.get(event.stage, 0.0) + event.seconds

    start = time.perf_counter()
    work.work(request, name.replace(" ", "-"), hear)
    seconds = time.perf_counter() - start
    store = Store(str(request.store))
    stored = sum(size for cube in (INPUTS, FUSED) for size in store.sizes(cube).values()) / 1e6
    return Trial(name, told, seconds, stages, stored)


@contextmanager
def _cache(folder: Path, quick: bool) -> Iterator[None]:
    """Rates of its own, in `folder`: neither the user's nor those of an earlier run of this."""
    before, enough = os.environ.get("MARSTFN_CACHE"), calibration.ENOUGH_S
    os.environ["MARSTFN_CACHE"] = str(folder)
    if quick:
        calibration.ENOUGH_S = 0.1
    try:
        yield
    finally:
        calibration.ENOUGH_S = enough
        os.environ.pop("MARSTFN_CACHE")
        if before is not None:
            os.environ["MARSTFN_CACHE"] = before


def _table(made: Sequence[Trial], cells: int, step: int) -> Table:
    figures, notes = [], []
    for trial in made:
        each = trial.told.duration
        assert each is not None, "the simulated catalogue and the processor are always known"
        ratio = each.total / trial.seconds
        within = f"{1 - BOUND:g}..{1 + BOUND:g}"
        figures.append(Figure(f"time told / taken, {trial.name}", (ratio,), "", within, abs(ratio - 1) <= BOUND))
        figures.append(Figure(f"store told / taken, {trial.name}", (trial.told.store_mb / trial.stored_mb,)))
        parts = ", ".join(
            f"{part} {getattr(each, part):.1f} / {sum(trial.stages.get(s, 0.0) for s in stages):.1f} s"
            for part, stages in STAGES.items()
        )
        notes.append(f"{trial.name}: told {each.total:.1f} s, taken {trial.seconds:.1f} s; {parts}; {trial.told.rates}")
    size = f"{cells * 6} x {cells * 6} px, 1 in {step} of the year's scenes"
    return Table("The cost of a year: what the plan says, what the run takes", tuple(figures), (size, *notes))


if __name__ == "__main__":
    sys.stdout.write(f"{machine()}\n\n")
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    sys.stdout.write(markdown(_table(trials(demo.GRID.columns, 1, tile_px=demo.GRID.tile_px, runs=runs), 40, 1)))
