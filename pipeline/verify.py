"""Whether a store holds what its plan promises: ledger, bytes, values, axes, georeference, attributes."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from marstfn.bands import FINE
from pipeline import checks, cube, harmonise, ledger, templates, yields
from pipeline.checks import Finding
from pipeline.cube import LAYERS
from pipeline.errors import CubeError, NoCubeError
from pipeline.events import Listener, StageDone, StageStarted, TileDone, TileFailed, silent
from pipeline.grid import Tile
from pipeline.ingest import ingest_fingerprint
from pipeline.plan import Plan
from pipeline.store import FUSED, INPUTS, LEDGER, Store

STAGES: tuple[ledger.Stage, ...] = ("ingest", "fuse")
_METADATA = re.compile(r"(^|/)zarr\.json$|/(time|source|registration|shift_(east|north|error)|y|x|spatial_ref)/c(/0)?$")
"""Objects of the templates: metadata, and the coordinates in one chunk each."""
Fingerprints = Callable[[ledger.Stage, Tile], str | None]


@dataclass(frozen=True, slots=True)
class Report:
    """What `verify` found; `ok` when nothing is wrong."""

    store: str
    findings: tuple[Finding, ...]
    tiles: int
    objects: int
    """Shards re-read."""
    seconds: float
    notes: tuple[str, ...] = ()
    """What a reader of the cube should know although nothing is wrong with the store."""

    @property
    def ok(self) -> bool:
        return not self.findings

    @property
    def lines(self) -> list[str]:
        """The report as plain text: what was checked, then a line for each finding."""
        head = f"{self.store}: {self.tiles} tiles, {self.objects} shards re-read in {self.seconds:.1f} s"
        count = len(self.findings)
        verdict = "all is well" if self.ok else f"{count} finding{'s' if count > 1 else ''}"
        notes = (f"  note: {note}" for note in self.notes)
        return [f"{head}: {verdict}", *(f"  {finding}" for finding in self.findings), *notes]


def verify(
    address: str | Path | Store,
    *,
    finished: bool = True,
    values: bool = True,
    workers: int | None = None,
    listener: Listener = silent,
) -> Report:
    """Check a store (its folder or URL, or the `fused.zarr` in it) against its own plan and ledger; changes nothing.

    `finished` False lets the status be anything but still asks for every tile; `values` False leaves pixels unread and
    checks bytes only. Tiles are told to `listener` as stage `verify`. Raises CubeError where there is no store.
    """
    began = time.perf_counter()
    store = store_of(address)
    plan, findings = templates.plan(store)
    if plan is None:
        return Report(store.url, tuple(findings), 0, 0, time.perf_counter() - began)
    findings += templates.inputs(store, plan)
    findings += templates.fused(store, plan, finished=finished)
    findings += strays(store, plan)
    gone = {name for name in (FUSED, INPUTS) if not store.sizes(name)}
    readable = {FUSED, INPUTS} - {f.where.split("/")[0] for f in findings if f.check in ("format", "layout")}
    prints, unknown = fingerprints(store, plan)
    findings += unknown
    tiles = list(plan.tiles)
    listener(StageStarted("verify", len(tiles)))

    def one(tile: Tile) -> tuple[Tile, list[Finding], int, float]:
        start = time.perf_counter()
        found, count = tile_findings(store, plan, tile, prints, readable if values else set(), gone)
        return tile, found, count, time.perf_counter() - start

    count = failed = 0
    with ThreadPoolExecutor(workers or min(4, os.cpu_count() or 1)) as pool:
        for tile, found, read, seconds in pool.map(one, tiles):
            findings += found
            count += read
            failed += bool(found)
            listener(TileDone("verify", tile.name, seconds))
            if found:
                listener(TileFailed("verify", tile.name, f"{len(found)} findings, the first: {found[0]}"))
    seconds = time.perf_counter() - began
    listener(StageDone("verify", seconds, len(tiles) - failed, failed))
    notes = tuple(m.text for m in yields.read(store))
    return Report(store.url, tuple(findings), len(tiles), count, seconds, notes)


def store_of(address: str | Path | Store) -> Store:
    """The store at `address`, which may also be that of the cube inside it. Raises CubeError where there is none."""
    if isinstance(address, Store):
        return address
    text = str(address).rstrip("/")
    if text.endswith(".zarr"):
        text = text.rpartition("/")[0] or ("/" if text.startswith("/") else ".")
    store = Store(text)
    store.reach()
    if store.local is not None and not (store.present and store.local.is_dir()):
        raise NoCubeError(f"there is no store at {text}; give the folder that the run printed")
    return store


def tile_findings(
    store: Store, plan: Plan, tile: Tile, prints: Fingerprints, readable: set[str], gone: Collection[str] = ()
) -> tuple[list[Finding], int]:
    """Ledger, bytes and (of the cubes in `readable`) values of one tile, and the number of shards read.

    The shards of a cube that is `gone` as a whole, which is told once, are not told one by one.
    """
    found: list[Finding] = []
    count = 0
    for stage in STAGES:
        expected = tile_objects(plan, stage, tile)
        try:
            record = ledger.read(store, stage, tile.name)
        except CubeError as error:
            where = ledger.name(stage, tile.name)
            found.append(Finding("ledger", str(error), where, "the tile cannot be trusted", checks.AGAIN))
            continue
        found += checks.ledger_record(stage, tile.name, record, prints(stage, tile), expected)
        if record is None or (FUSED if stage == "fuse" else INPUTS) in gone:
            continue
        now = ledger.checksum(store, record.checksums)
        damaged = list(checks.shard_objects(stage, tile.name, record.checksums, now))
        found += damaged
        count += len(now)
        if not damaged and (FUSED if stage == "fuse" else INPUTS) in readable:
            found += _fused_values(store, plan, tile) if stage == "fuse" else _input_values(store, plan, tile)
    return found, count


def tile_objects(plan: Plan, stage: ledger.Stage, tile: Tile) -> tuple[str, ...]:
    """Names of all shards that a stage writes for a tile."""
    if stage == "fuse":
        blocks = cube.fused_blocks(plan)
        return tuple(o for name in LAYERS for o in cube.shard_objects(FUSED, name, blocks, tile, FINE))
    return tuple(cube.input_objects(plan, tile))


def fingerprints(store: Store, plan: Plan) -> tuple[Fingerprints, list[Finding]]:
    """What each tile's record must say it was made from; that of `fuse` is None where its basis is gone, and told."""
    from pipeline.fuse import fuse_fingerprint  # brings torch, so not before it is needed
    from pipeline.workers import decided, pairs

    tiles = list(plan.tiles)
    expected: dict[tuple[str, str], str | None] = {("ingest", t.name): ingest_fingerprint(plan, t) for t in tiles}
    identity = harmonise.harmonise_fingerprint(plan, [str(expected["ingest", t.name]) for t in tiles])
    wrong = ""
    try:
        kept = harmonise.read(store)
        if kept is None or kept.fingerprint != identity:
            wrong = "it is missing" if kept is None else "it follows from other inputs or bounds than now"
        else:
            found = pairs(plan, store)
            chosen = decided(plan, store, kept, found).methods
            expected |= {("fuse", t.name): fuse_fingerprint(plan, t, kept, found, chosen) for t in tiles}
    except CubeError as error:
        # a damaged record is told where its tile is checked
        wrong = str(error) if harmonise.NAME in str(error) else ""
    consequence = "how Landsat was brought to the radiometric frame cannot be told"
    unknown = [Finding("ledger", wrong, harmonise.NAME, consequence, "Run again with the same store")] if wrong else []
    return lambda stage, tile: expected.get((stage, tile.name)), unknown


def strays(store: Store, plan: Plan) -> Iterator[Finding]:
    """Objects in the two cubes and the ledger that no stage writes, and what killed writes left behind."""
    known = {entry for stage in STAGES for tile in plan.tiles for entry in tile_objects(plan, stage, tile)}
    # samples for training are no part of the cube, and may well have been mined from its inputs
    known |= {ledger.name(stage, tile.name) for stage in (*STAGES, "mine") for tile in plan.tiles}
    for folder in (FUSED, INPUTS, LEDGER):
        for entry in store.names(folder):
            if ".partial" in entry.rpartition("/")[2]:
                what, consequence = "a write was killed here", "readers pass it by, but it takes room"
            elif entry in known or _METADATA.search(entry) or (folder == LEDGER and entry.count("/") == 1):
                continue
            else:
                what, consequence = "no stage of the plan writes this object", "it may be read as pixels of the cube"
            yield Finding("stray", what, entry, consequence, "Delete it")


def _fused_values(store: Store, plan: Plan, tile: Tile) -> Iterator[Finding]:
    for dates in cube.fused_blocks(plan):
        stored = _block(store, FUSED, LAYERS, dates, tile, FINE)
        if isinstance(stored, Finding):
            yield stored
        else:
            yield from checks.fused_values(plan, tile.name, dates, stored)
            yield from checks.uncertainties(plan, tile.name, dates, stored)


def _input_values(store: Store, plan: Plan, tile: Tile) -> Iterator[Finding]:
    for group in cube.groups(plan):
        scenes = cube.group_scenes(plan, group)
        if not scenes:
            continue
        for dates in cube.input_blocks(plan, group):
            names = [f"{group.name}/{name}" for name in group.variables]
            stored = _block(store, INPUTS, names, dates, tile, group.resolution)
            if isinstance(stored, Finding):
                yield stored
            else:
                plain = {name.partition("/")[2]: values for name, values in stored.items()}
                yield from checks.input_values(group.name, scenes[dates], tile.name, group.bands, plain)


def _block(
    store: Store, name: str, variables: Sequence[str], dates: slice, tile: Tile, resolution: int
) -> checks.Stored | Finding:
    """Stored values of a tile and time block, or what keeps them from being read."""
    try:
        where = (dates, *tile.roi(resolution))
        return {v: np.asarray(cube.array(store, name, v)[where]) for v in variables}
    except Exception as error:  # a damaged shard fails in the codec, with whatever error that has
        what = f"its pixels cannot be decoded ({type(error).__name__}: {error})"
        return Finding("values", what, f"{name}, tile {tile.name}", "readers of the tile fail", checks.AGAIN)
