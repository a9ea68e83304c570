"""What workers are asked to do: one tile of one stage, from what the store says and nothing else.

Plan and items are read from the store once a process; what travels is a tile's place and a few words. Imports no torch:
a worker that only reads has no use for it.
"""

from __future__ import annotations

import json
import logging
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pystac

from pipeline import audit, ledger, logs, pairing, registration, room, sampling, units
from pipeline import harmonise as radiometry
from pipeline.errors import CubeError, MarstfnError, StoreError
from pipeline.grid import Tile
from pipeline.harmonise import Harmonisation, harmonise_fingerprint
from pipeline.ingest import REPEATED, TileResult, ingest_fingerprint, ingest_tile, ingest_tiles
from pipeline.items import sha256
from pipeline.pairing import Pair
from pipeline.plan import Plan, fingerprint, parsed
from pipeline.shifts import SceneShift
from pipeline.store import ITEMS, PLAN, Store

if TYPE_CHECKING:
    from pipeline.gate import Decision, Judged
    from pipeline.mining import Census, Lattice, Mined, Wanted

log = logging.getLogger(__name__)

T = TypeVar("T")


def pairs(plan: Plan, store: Store) -> tuple[Pair, ...]:
    """References of all Landsat dates, from the clear counts in the ledger. Raises CubeError where a tile lacks."""
    names, days = [tile.name for tile in plan.tiles], len(plan.of("sentinel2"))
    counts = []
    for name, record in zip(names, ledger.each(store, "ingest", names), strict=True):
        if isinstance(record, CubeError):
            raise record
        if record is None:
            raise CubeError(f"tile {name} is not in the ledger of {store.url}; ingest it first (run again)")
        if "sentinel2" not in record.stats:
            where = store.join(ledger.name("ingest", name))
            raise CubeError(f"{where} lacks the counts of Sentinel-2; delete it and run again: the tile is made again")
        told = record.stats["sentinel2"]
        if not isinstance(told, list) or [len(day) for day in told if isinstance(day, list)] != [3] * days:
            where = store.join(ledger.name("ingest", name))
            raise CubeError(
                f"{where} counts other than {days} Sentinel-2 dates; delete it and run again: the tile is made again"
            )
        counts.append(np.asarray(told))
    clear = pairing.clear_fractions(counts)
    landsat, sentinel2 = ([scene.time for scene in plan.of(sensor)] for sensor in ("landsat8", "sentinel2"))
    return pairing.pair(landsat, sentinel2, clear, plan.options)


def ingest_one(row: int, col: int, url: str, stamp: str) -> TileResult:
    """The task of a reading worker: ingest_tile on what the store says."""
    plan, items = opened(url, stamp)
    tile = plan.grid.tile(row, col)
    known = _known(Store(url), "ingest", tile, ingest_fingerprint(plan, tile))
    return known or _stored(tile, url, lambda: ingest_tile(plan, Store(url), tile, items))


def ingest_unit(row: int, col: int, url: str, stamp: str, side: int) -> TileResult:
    """The task of a reading worker: ingest_tiles on what is left of a cell of `side` x `side` tiles."""
    plan, items = opened(url, stamp)
    place, store = units.cell(plan.grid, side, row, col), Store(url)

    def work() -> TileResult:
        prints = {tile: ingest_fingerprint(plan, tile) for tile in units.wanted(plan, place)}
        left = [tile for tile, made_from in prints.items() if not ledger.done(store, "ingest", tile.name, made_from)]
        if not left:  # a worker died between the last of them and its answer
            return TileResult("ingest", place.name, 0.0)
        return ingest_tiles(plan, store, left, items, place.name)

    return _stored(place, url, work)


def audit_one(row: int, col: int, url: str, stamp: str) -> tuple[str, tuple[Any, Any]]:
    """The task of a reading worker: the pixels by which each Sentinel-2 date's offset is judged."""
    plan, _ = opened(url, stamp)
    tile = plan.grid.tile(row, col)
    return _plainly(tile, lambda: (tile.name, audit.sample_tile(plan, Store(url), tile)))


def measure_one(row: int, col: int, url: str, stamp: str) -> tuple[str, registration.Found]:
    """The task of a reading worker: how far Landsat lies beside Sentinel-2 in the window that a tile stands for."""
    plan, _ = opened(url, stamp)
    tile = plan.grid.tile(row, col)
    return _plainly(tile, lambda: (tile.name, registration.measure_tile(plan, Store(url), tile)))


def sample_one(
    row: int, col: int, url: str, stamp: str, count: int, shifts: tuple[SceneShift, ...]
) -> tuple[str, dict[int, Any]]:
    """The task of a reading worker: the pixels on which Landsat is checked."""
    plan, _ = opened(url, stamp)
    tile = plan.grid.tile(row, col)
    return _plainly(tile, lambda: (tile.name, sampling.sample_tile(plan, Store(url), tile, count, shifts)))


def gate_one(row: int, col: int, url: str, stamp: str, basis: str) -> Judged:
    """The task of a fusing worker: what one place says of the methods."""
    from pipeline.gate import judge_place, places

    plan, store = opened(url, stamp)[0], Store(url)
    place = next(p for p in places(plan) if (p.row, p.col) == (row, col))
    return _plainly(place, lambda: judge_place(plan, store, place, *_basis(url, stamp, basis)))


def fuse_one(row: int, col: int, url: str, stamp: str, basis: str) -> TileResult:
    """The task of a fusing worker: fuse_tile on what the store says; `basis` names harmonisation and pairs."""
    from pipeline.fuse import fuse_fingerprint, fuse_tile

    plan, _ = opened(url, stamp)
    tile = plan.grid.tile(row, col)

    def work() -> TileResult:
        store, (fits, found) = Store(url), _basis(url, stamp, basis)
        chosen = decided(plan, store, fits, found).methods
        known = _known(store, "fuse", tile, fuse_fingerprint(plan, tile, fits, found, chosen))
        return known or fuse_tile(plan, store, tile, fits, found, chosen)

    return _stored(tile, url, work)


def survey_one(row: int, col: int, url: str, stamp: str, lattice: Lattice) -> Census:
    """The task of a reading worker: how clear the patches of a tile are."""
    from pipeline.mining import census

    plan, _ = opened(url, stamp)
    tile = plan.grid.tile(row, col)
    return _plainly(tile, lambda: census(plan, Store(url), tile, lattice))


def mine_one(row: int, col: int, url: str, stamp: str, basis: str) -> Mined:
    """The task of a reading worker: the training samples of a tile; `basis` names what is wanted of it."""
    from pipeline.mining import mine

    plan, store = opened(url, stamp)[0], Store(url)
    tile = plan.grid.tile(row, col)
    return _stored(tile, url, lambda: mine(plan, store, tile, harmonised(plan, store), _wanted(url, basis)))


@lru_cache(maxsize=2)
def _wanted(url: str, basis: str) -> Wanted:
    from pipeline.mining import WANTED, wanted

    found = wanted(Store(url))
    if found is None:
        raise CubeError(f"{Store(url).join(WANTED)} is gone; run the same command again")
    return found


def _known(store: Store, stage: ledger.Stage, tile: Tile, identity: str) -> TileResult | None:
    """What a tile's task gave that has been done meanwhile: where a worker dies between the ledger and its answer, the
    scheduler gives the task to another."""
    if not ledger.done(store, stage, tile.name, identity):
        return None
    record = ledger.read(store, stage, tile.name)
    if record is None:
        return None
    return TileResult(stage, tile.name, record.seconds, record.timings, record.stats.get(REPEATED, {}))


def _stored(tile: Tile, url: str, work: Callable[[], T]) -> T:
    """`_plainly` for work that writes: a full disk is said in words."""

    def noticed() -> T:
        with room.noticed(Store(url), f"tile {tile.name}"):
            return work()

    return _plainly(tile, noticed)


def _plainly(tile: Tile, work: Callable[[], T]) -> T:
    """Do the work of a task. It logs under the tile's name, and its errors go without cause and context: those of GDAL
    cannot be pickled, and Dask would send home a nameless Exception in their place."""
    with logs.tile(tile.name):
        try:
            return work()
        except MarstfnError as error:
            plain = type(error)(str(error))
        except Exception as error:
            log.exception("tile %s failed", tile.name)
            plain = MarstfnError(f"{type(error).__name__}: {error} (its traceback is in the log)")
    # outside of the handlers: an error raised in one, `from None` too, keeps what was being handled as its context
    raise plain


def opened(url: str, stamp: str) -> tuple[Plan, Mapping[str, pystac.Item]]:
    """Plan and items of a store, kept per process; `stamp` changes when the plan does.

    Raises StoreError where one is missing or of another format.
    """
    # one thread at a time: pystac fills its table of extensions while it reads, and two readers trip over it
    with _opening:
        return _opened(url, stamp)


_opening = threading.Lock()


@lru_cache(maxsize=2)
def _opened(url: str, stamp: str) -> tuple[Plan, Mapping[str, pystac.Item]]:
    store = Store(url)
    text, items = store.read(PLAN), store.read(ITEMS)
    if text is None or items is None:
        raise StoreError(f"{url} holds no {PLAN if text is None else ITEMS}; run the command that makes the plan first")
    plan = parsed(text, store.join(PLAN))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pystac warns about hrefs its storage extension cannot parse
            found = pystac.ItemCollection.from_dict(json.loads(items))
    except (ValueError, KeyError, TypeError, AttributeError, pystac.STACError) as error:
        raise StoreError(
            f"{store.join(ITEMS)} is damaged: it is no collection of items ({type(error).__name__}: {error}); nothing "
            "was changed there. Restore it from a copy, or choose another --store"
        ) from error
    if sha256(found) != plan.items_sha256:
        raise StoreError(
            f"{store.join(ITEMS)} holds other items than the plan was made from; nothing was read or changed. Restore "
            "it from a copy, or choose another --store"
        )
    return plan, {item.id: item for item in found}


@lru_cache(maxsize=2)
def _basis(url: str, stamp: str, basis: str) -> tuple[Harmonisation, tuple[Pair, ...]]:
    plan, store = opened(url, stamp)[0], Store(url)
    return harmonised(plan, store), pairs(plan, store)


def harmonised(plan: Plan, store: Store) -> Harmonisation:
    """The fits in the store, made from these very inputs. Raises CubeError where there are none."""
    found = radiometry.read(store)
    identity = harmonise_fingerprint(plan, [ingest_fingerprint(plan, t) for t in plan.tiles])
    if found is None or found.fingerprint != identity:
        raise CubeError(f"{store.join(radiometry.NAME)} is missing or of other inputs; run the harmonise stage first")
    return found


def decided(plan: Plan, store: Store, fits: Harmonisation, found: Sequence[Pair]) -> Decision:
    """The method of each Landsat date: the one asked for, or as the gate found. Raises CubeError where it has not."""
    from pipeline import gate

    kept = gate.forced(plan) or gate.read(store)
    if kept is None or (plan.options.method == "auto" and kept.fingerprint != gate.gate_fingerprint(plan, fits, found)):
        raise CubeError(f"{store.join(gate.NAME)} is missing or of other inputs; run the gate stage first")
    return kept


def stamped(store: Store) -> str:
    """What tells a worker that the plan in the store is not the one it remembers."""
    text = store.read(PLAN)
    return fingerprint((text or b"").decode(errors="replace"))
