"""How far a run has come and how long it will take, read from its store alone."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from pipeline import cube, ledger, yields
from pipeline.errors import CubeError, StoreError
from pipeline.lease import LOCK as LOCK
from pipeline.outlook import span
from pipeline.plan import Plan, parsed
from pipeline.store import FUSED, LEDGER, PLAN, Store

STAGES: tuple[ledger.Stage, ...] = ("ingest", "fuse")
RECENT = 20
"""Tiles that the present rate is taken from: enough to be steady, few enough to forget how it was before."""
WAVES = 3
"""Tiles a worker after which their stamps tell the rate; before, they come in waves and would tell of one."""
PAUSE_S, PAUSE_TILES = 300.0, 10
"""A time without a tile counts as an interruption of the run, and not as work, from so many seconds on, and from so
many times what a tile takes."""
SILENT_TILES = 4
"""Times what a tile takes without one after which a run is said to look dead, and PAUSE_S at least."""


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
    """Tiles finished an hour lately, over all workers; None until one is done."""
    last: datetime | None
    workers: int = 0
    """Tiles that were in work at the same time lately."""

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
            text += f", {self.per_hour:.0f} an hour" + (f" by {self.workers} at once" if self.workers > 1 else "")
            if self.left is not None:
                text += f", about {span(self.left.total_seconds())} left"
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
    life: str = ""
    """Whether the run looks alive, in words; empty where it is complete or nothing tells."""
    working: bool = False
    """Whether a process of this machine is at work on it."""

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
        end = f": {self.path}" if self.complete else "" if self.working else "; run the same command again to go on"
        lost = [f"  {'no pixels':<9} {line}" for line in self.missed]
        run = [f"  {'run':<9} {self.life}"] if self.life else []
        return [head, ingest, *lost, *steps, *others, *run, f"  {'cube':<9} {state}{end}"]


def read(store: Store, now: datetime | None = None) -> State:
    """The state of the run in `store`, `now` (default: the present). Raises StoreError where no run was begun there."""
    store.reach()
    if store.local is not None and not (store.present and store.local.is_dir()):
        raise StoreError(f"there is no folder {store.url}; give the store of a run (the folder that holds {PLAN})")
    text = store.read(PLAN)
    if text is None:
        raise StoreError(f"{store.url} holds no {PLAN}, so no run was begun there; give the store of a run")
    plan = parsed(text, store.join(PLAN))
    tiles = [tile.name for tile in plan.tiles]
    names = ("harmonise", "gate") if plan.options.method == "auto" else ("harmonise",)
    steps = tuple((name, store.read(f"{LEDGER}/{name}.json") is not None) for name in names)
    stages = tuple(_stage(store, stage, tiles) for stage in STAGES)
    missed = tuple(m.line for m in yields.read(store))
    found = State(store.url, plan, stages, cube.status(store), steps, store.join(FUSED), missed)
    if found.complete:
        return found
    process, here = holder(store)
    return replace(found, life=alive(stages, process, here, now or datetime.now(UTC)), working=here)


def alive(stages: Sequence[StageState], process: int | None, here: bool, now: datetime) -> str:
    """Whether a run that is not complete looks alive. `process`: the one that the store's lock names, and whether it
    is `here`, at work on this machine."""
    told = max((stage for stage in stages if stage.last), key=lambda s: s.last or now, default=None)
    quiet = None if told is None or told.last is None else max(0.0, (now - told.last).total_seconds())
    since = "" if quiet is None else f"the last tile was finished {span(quiet)} ago"
    if here:
        return f"at work (process {process})" + (f"; {since}" if since else "")
    if told is None or quiet is None:
        return ""
    usual = told.seconds_per_tile or 0.0
    if quiet > max(PAUSE_S, SILENT_TILES * usual):
        return f"it looks dead: {since}, and one takes {span(usual)}"
    if process is not None:
        return f"{since}: process {process}, which made it, is no longer at work here; it may be alive elsewhere"
    return f"{since}: it may be alive"


def holder(store: Store) -> tuple[int | None, bool]:
    """The process that the lock of a store on a disk names, and whether it is at work on this machine; None where
    there is no such lock, or where it cannot be told."""
    if store.local is None:
        return None, False
    process = None
    try:
        with (store.local / LOCK).open() as file:
            process = int(file.read().removeprefix("process "))
            # the lock is tried only where the process is there: it holds it, and no run that begins now is kept out
            with suppress(PermissionError):  # it is there, and another user's
                os.kill(process, 0)
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return process, True
    except (OSError, ValueError):
        pass
    return process, False


def stage_state(stage: str, total: int, records: Sequence[ledger.Record], unreadable: Sequence[str] = ()) -> StageState:
    """The state of a stage of `total` tiles from the records there are, in any order."""
    stamped = sorted((datetime.fromisoformat(r.written), r.seconds) for r in records if r.written)
    spent = sorted(record.seconds for record in records)
    usual = spent[len(spent) // 2] if spent else None
    workers = _at_once(stamped[-RECENT:])
    recent = stamped[-max(RECENT, (WAVES + 1) * workers) :]
    return StageState(
        stage,
        total,
        len(records),
        tuple(unreadable),
        usual,
        _rate(recent, workers),
        stamped[-1][0] if stamped else None,
        workers,
    )


def _rate(recent: Sequence[tuple[datetime, float]], workers: int) -> float | None:
    """Tiles an hour, from when they were finished and how long each took; interruptions left out."""
    mean = sum(seconds for _, seconds in recent) / max(1, len(recent))
    steps = [(b - a).total_seconds() for (a, _), (b, _) in pairwise(recent)]
    worked = [step for step in steps if step <= max(PAUSE_S, PAUSE_TILES * mean)]
    if len(recent) > WAVES * workers and sum(worked) > 0:
        # the first of them only marks where the clock starts
        return len(worked) / sum(worked) * 3600
    return workers / mean * 3600 if mean > 0 else None


def _at_once(recent: Sequence[tuple[datetime, float]]) -> int:
    """The most tiles that were in work at the same time; stamps are whole seconds, so one that ends as another begins
    is not counted beside it."""
    events = [(end - timedelta(seconds=max(0.0, seconds - 1)), 1) for end, seconds in recent]
    events += [(end, -1) for end, _ in recent]
    now = most = 0
    for _, change in sorted(events, key=lambda e: (e[0], e[1])):
        now += change
        most = max(most, now)
    return most


def _stage(store: Store, stage: ledger.Stage, tiles: Sequence[str]) -> StageState:
    records, unreadable = [], []
    for tile, record in zip(tiles, ledger.each(store, stage, tiles), strict=True):
        if isinstance(record, CubeError):
            unreadable.append(tile)
        elif record is not None:
            # thousands of tiles: what status does not ask for is let go
            records.append(replace(record, checksums={}, stats={}, sizes={}))
    return stage_state(stage, len(tiles), records, unreadable)
