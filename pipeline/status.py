"""How far a run has come and how long it will take, read from its store alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pipeline import cube, ledger, yields
from pipeline.errors import CubeError, StoreError
from pipeline.plan import Plan, parsed
from pipeline.store import FUSED, LEDGER, PLAN, Store

STAGES: tuple[ledger.Stage, ...] = ("ingest", "fuse")
RECENT = 20
"""Tiles that the present rate is taken from: enough to be steady, few enough to forget an interruption."""


@dataclass(frozen=True, slots=True)
class StageState:
    """One stage by its ledger."""

    stage: str
    total: int
    done: int
    unreadable: tuple[str, ...]
    """Tiles whose record cannot be understood."""
    seconds_per_tile: float | None
    """Median time that a worker spent on a tile."""
    per_hour: float | None
    """Tiles finished an hour lately, over all workers; None until two are done."""
    last: datetime | None

    @property
    def left(self) -> timedelta | None:
        """Time to the end of the stage at the present rate; None where there is no rate yet."""
        if self.done == self.total:
            return timedelta(0)
        return timedelta(hours=(self.total - self.done) / self.per_hour) if self.per_hour else None

    @property
    def line(self) -> str:
        """The stage in one line of text."""
        text = f"{self.stage:<9} {self.done} of {self.total} tiles"
        if self.per_hour and self.done < self.total:
            text += f", {self.per_hour:.0f} an hour"
            if self.left is not None:
                text += f", about {_span(self.left)} left"
        if self.unreadable:
            text += f", {len(self.unreadable)} unreadable records ({', '.join(self.unreadable[:3])})"
        return text


@dataclass(frozen=True, slots=True)
class State:
    """What a store says about its run."""

    store: str
    plan: Plan
    stages: tuple[StageState, ...]
    cube: str | None
    """The cube's attribute `status`; None before there is a cube."""
    steps: tuple[tuple[str, bool], ...] = ()
    """Stages of the whole area between those of tiles, and whether each is done."""
    path: str = ""
    """Where the cube lies."""
    missed: tuple[str, ...] = ()
    """Items that cover the area and gave no pixel there."""

    @property
    def complete(self) -> bool:
        return self.cube == "complete" and all(stage.done == stage.total for stage in self.stages)

    @property
    def lines(self) -> list[str]:
        """The state as plain text, a line each."""
        steps = (f"  {name:<9} {'done' if done else 'not done'}" for name, done in self.steps)
        ingest, *others = (f"  {stage.line}" for stage in self.stages)
        head = f"{self.plan.name} {self.plan.year}: {len(self.plan.scenes)} dates, {self.store}"
        state = self.cube or "not begun"
        end = f": {self.path}" if self.complete else "; run the same command again to go on"
        lost = [f"  {'no pixels':<9} {line}" for line in self.missed]
        return [head, ingest, *lost, *steps, *others, f"  {'cube':<9} {state}{end}"]


def read(store: Store) -> State:
    """The state of the run in `store`. Raises StoreError where no run was begun there."""
    store.reach()
    if store.local is not None and not (store.present and store.local.is_dir()):
        raise StoreError(f"there is no folder {store.url}; give the store of a run (the folder that holds {PLAN})")
    text = store.read(PLAN)
    if text is None:
        raise StoreError(f"{store.url} holds no {PLAN}, so no run was begun there; give the store of a run")
    plan = parsed(text, store.join(PLAN))
    tiles = [tile.name for tile in plan.grid.tiles()]
    names = ("harmonise", "gate") if plan.options.method == "auto" else ("harmonise",)
    steps = tuple((name, store.read(f"{LEDGER}/{name}.json") is not None) for name in names)
    stages = tuple(_stage(store, stage, tiles) for stage in STAGES)
    missed = tuple(m.line for m in yields.read(store))
    return State(store.url, plan, stages, cube.status(store), steps, store.join(FUSED), missed)


def stage_state(stage: str, total: int, records: Sequence[ledger.Record], unreadable: Sequence[str] = ()) -> StageState:
    """The state of a stage of `total` tiles from the records there are, in any order."""
    written = sorted(datetime.fromisoformat(record.written) for record in records if record.written)
    spent = sorted(record.seconds for record in records)
    recent = written[-RECENT:]
    span = (recent[-1] - recent[0]).total_seconds() if recent else 0.0
    # the first of the recent tiles only marks where the clock starts
    rate = (len(recent) - 1) / span * 3600 if span > 0 else None
    return StageState(
        stage,
        total,
        len(records),
        tuple(unreadable),
        spent[len(spent) // 2] if spent else None,
        rate,
        written[-1] if written else None,
    )


def _stage(store: Store, stage: ledger.Stage, tiles: Sequence[str]) -> StageState:
    there = {name.rsplit("/", 1)[-1].removesuffix(".json") for name in store.names(f"ledger/{stage}")}
    records, unreadable = [], []
    for tile in tiles:
        if tile not in there:
            continue
        try:
            record = ledger.read(store, stage, tile)
        except CubeError:
            unreadable.append(tile)
            continue
        if record is not None:
            records.append(record)
    return stage_state(stage, len(tiles), records, unreadable)


def _span(left: timedelta) -> str:
    minutes = max(1, round(left.total_seconds() / 60))
    return f"{minutes} min" if minutes < 120 else f"{round(minutes / 60)} h"
