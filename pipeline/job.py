"""The job from request to finished cube, stage by stage; each stage goes on where a killed one stopped."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pystac
from distributed import Client

from pipeline import cluster, cube, ledger, logs, pairing, planner, publish, settings
from pipeline import harmonise as radiometry
from pipeline.errors import CubeError, MarstfnError, StoreError
from pipeline.events import Listener, Note, StageDone, StageStarted, silent
from pipeline.grid import Tile
from pipeline.harmonise import Harmonisation, harmonise_fingerprint
from pipeline.ingest import TileResult, ingest_fingerprint, ingest_tile
from pipeline.pairing import Pair
from pipeline.plan import FORMAT, Plan, fingerprint
from pipeline.request import Request
from pipeline.store import FUSED, ITEMS, LEDGER, PLAN, Store
from pipeline.tasks import Failure, map_tiles
from pipeline.views import Truth

log = logging.getLogger(__name__)

PAIRS = f"{LEDGER}/pairs.json"
LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class Job:
    """A plan and the store that holds it; everything else is read from there."""

    plan: Plan
    store: Store
    items: Mapping[str, pystac.Item]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a finished run says of itself."""

    cube: str
    store: str
    tiles: int
    landsat_dates: int
    sentinel2_dates: int
    seconds: float
    files: tuple[str, ...]
    """What lies beside the cube, names in the store."""


def prepare(request: Request, listener: Listener = silent, *, area: Any = None) -> Job:
    """The job of a request: the plan frozen in its store, or a new one, frozen there now.

    Raises StoreError, naming the parameters, where the store holds another plan; nothing is changed there then.
    """
    defaults = settings.load()
    area = area or planner.read_area(request, defaults)
    store = Store(planner.store_url(request, area))
    listener(Note("store", store.url))
    text = store.read(PLAN)
    if text is not None:
        job = open_job(store)
        differing = planner.contradictions(job.plan, request, area)
        if differing:
            raise StoreError(
                f"{store.url} holds another plan: {'; '.join(differing)}. Nothing was changed there. "
                "Choose another --store, or ask for what it holds to go on with it"
            )
        changed = planner.drift(job.plan)
        if changed:
            listener(Note("warning", f"libraries have changed since the plan was made: {', '.join(changed)}"))
        listener(Note("plan", f"going on with the plan in {store.url}", job.plan))
        return job
    made = _writable(store)
    try:
        plan, items = planner.make_plan(request, area=area, listener=listener, defaults=defaults)
    except BaseException:
        if made is not None:
            made.rmdir()
        raise
    # the plan comes last: where it is, everything is
    store.write(ITEMS, json.dumps(items.to_dict(transform_hrefs=False)).encode())
    store.write(PLAN, plan.model_dump_json(indent=1).encode())
    return Job(plan, store, {item.id: item for item in items})


def open_job(store: Store) -> Job:
    """The job whose plan a store holds. Raises StoreError where there is none, or one of another format."""
    plan, items = _opened(store.url, _stamp(store))
    return Job(plan, store, items)


def ingest(job: Job, client: Client, listener: Listener = silent) -> None:
    """Read all tiles that are not in the ledger yet. Raises MarstfnError naming the tiles that failed."""
    plan, store = job.plan, job.store
    if cube.create_inputs(plan, store):
        ledger.clear(store, "ingest")
    tiles = list(plan.tiles)
    todo = [t for t in tiles if not ledger.done(store, "ingest", t.name, ingest_fingerprint(plan, t))]
    if todo:
        _unfinished(store)
    _stage("ingest", tiles, todo, listener, lambda: map_tiles(
        client, "ingest", ingest_one, todo, (store.url, _stamp(store)), resource=_reading(client), listener=listener,
    ))  # fmt: skip


def harmonise(job: Job, client: Client, listener: Listener = silent) -> Harmonisation:
    """Pair the dates and fit Landsat to Sentinel-2 on a bounded sample; kept in the store, made once.

    Raises CubeError where tiles are not ingested, MarstfnError where sampling fails.
    """
    plan, store = job.plan, job.store
    tiles = list(plan.tiles)
    identity = harmonise_fingerprint(plan, [ingest_fingerprint(plan, t) for t in tiles])
    found = pairs(plan, store)
    store.write(PAIRS, json.dumps([p.as_dict() for p in found]).encode())
    labels = [s.label for s in plan.of("landsat8")]
    listener(Note("pairs", f"{sum(bool(p.references) for p in found)} of {len(found)} Landsat dates have references",
                  [p.as_dict() | {"label": labels[p.landsat]} for p in found]))  # fmt: skip
    kept = radiometry.read(store)
    sampled = radiometry.sampled(tiles) if plan.options.scene_check else []
    if kept is not None and kept.fingerprint == identity:
        listener(StageStarted("harmonise", len(sampled), len(sampled)))
        listener(StageDone("harmonise", 0.0, len(sampled), 0))
        return kept
    count = -(-radiometry.SAMPLE // max(1, len(sampled)))
    results = _stage("harmonise", sampled, sampled, listener, lambda: map_tiles(
        client, "harmonise", sample_one, sampled, (store.url, _stamp(store), count), resource=_reading(client),
        listener=listener,
    ))  # fmt: skip
    samples = [samples for _, samples in sorted(results, key=lambda r: r[0])]
    result = radiometry.fit_scenes(plan, samples, identity)
    radiometry.write(store, result)
    applied = sum(fit.applied for scene in result.scenes for fit in scene.bands)
    listener(Note("harmonise", f"{applied} of {6 * len(result.scenes)} Landsat bands corrected", result))
    return result


def fuse(job: Job, client: Client, listener: Listener = silent) -> None:
    """Fuse all tiles that are not in the ledger yet. Raises MarstfnError naming the tiles that failed."""
    from pipeline.fuse import fuse_fingerprint  # only where tiles are fused is torch needed

    plan, store = job.plan, job.store
    if cube.create_fused(plan, store):
        ledger.clear(store, "fuse")
    harmonisation = _harmonisation(store, plan)
    found = pairs(plan, store)
    tiles = list(plan.tiles)
    todo = [t for t in tiles if not ledger.done(store, "fuse", t.name, fuse_fingerprint(plan, t, harmonisation, found))]
    if todo:
        _unfinished(store)
    stamp = fingerprint({"harmonisation": harmonisation.fingerprint, "pairs": [p.as_dict() for p in found]})
    _stage("fuse", tiles, todo, listener, lambda: map_tiles(
        client, "fuse", fuse_one, todo, (store.url, _stamp(store), stamp), resource=cluster.GPU, listener=listener,
    ))  # fmt: skip


def finish(job: Job, listener: Listener = silent, *, truth: Truth | None = None, began: float | None = None) -> Summary:
    """Report, pictures and STAC item; last of all the cube's status becomes `complete`.

    Raises CubeError where a tile is missing from the ledger. `began`: time.monotonic() at the start of the run.
    """
    from pipeline.fuse import fuse_fingerprint

    plan, store = job.plan, job.store
    harmonisation, found = _harmonisation(store, plan), pairs(plan, store)
    missing = [
        t.name
        for t in plan.tiles
        if not ledger.done(store, "fuse", t.name, fuse_fingerprint(plan, t, harmonisation, found))
    ]
    if missing:
        raise CubeError(
            f"{store.join(FUSED)} lacks {len(missing)} tiles ({', '.join(missing[:5])}...); it stays in progress. "
            "Run the same command again: finished tiles are kept"
        )
    published = publish.finish(store, plan, truth=truth, listener=listener)
    cube.set_status(store, "complete")
    listener(Note("cube", store.join(FUSED)))
    return Summary(
        store.join(FUSED), store.url, len(plan.tiles), len(plan.of("landsat8")), len(plan.of("sentinel2")),
        time.monotonic() - began if began is not None else 0.0, published.files,
    )  # fmt: skip


def run(request: Request, listener: Listener = silent, *, truth: Truth | None = None) -> Summary:
    """All stages, on the cluster the request names or an embedded one."""
    began = time.monotonic()
    job = prepare(request, listener)
    with alone(job.store):
        with cluster.connect(request.scheduler, device=job.plan.options.device, defaults=settings.load()) as client:
            logs.forward(client)
            listener(Note("dashboard", client.dashboard_link))
            ingest(job, client, listener)
            harmonise(job, client, listener)
            fuse(job, client, listener)
        return finish(job, listener, truth=truth, began=began)


@contextmanager
def alone(store: Store) -> Iterator[None]:
    """Keep other runs of this machine out of the store, and clear what a killed one left half-written.

    Raises StoreError where another run is at work in it. The lock dies with its process, however that ends.
    """
    if store.local is None:
        yield
        return
    store.local.mkdir(parents=True, exist_ok=True)
    with (store.local / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise StoreError(
                f"another run ({file.read().strip() or 'unknown'}) is at work in {store.url}; two would spoil each "
                "other's tiles. Wait for it, or choose another --store"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()}")
        file.flush()
        swept = store.sweep()
        if swept:
            log.info("removed %d half-written objects of an earlier run from %s", swept, store.url)
        yield


def pairs(plan: Plan, store: Store) -> tuple[Pair, ...]:
    """References of all Landsat dates, from the clear counts in the ledger. Raises CubeError where a tile lacks."""
    counts = []
    for tile in plan.tiles:
        record = ledger.read(store, "ingest", tile.name)
        if record is None:
            raise CubeError(f"tile {tile.name} is not in the ledger of {store.url}; ingest it first (run again)")
        counts.append(record.stats["sentinel2"])
    clear = pairing.clear_fractions(counts)
    landsat, sentinel2 = ([scene.time for scene in plan.of(sensor)] for sensor in ("landsat8", "sentinel2"))
    return pairing.pair(landsat, sentinel2, clear, plan.options)


def ingest_one(row: int, col: int, url: str, stamp: str) -> TileResult:
    """The task of a reading worker: ingest_tile on what the store says."""
    plan, items = _opened(url, stamp)
    tile = plan.grid.tile(row, col)
    with _plainly(tile):
        return ingest_tile(plan, Store(url), tile, items)


def sample_one(row: int, col: int, url: str, stamp: str, count: int) -> tuple[str, dict[int, Any]]:
    """The task of a reading worker: the pixels on which Landsat is checked."""
    plan, _ = _opened(url, stamp)
    tile = plan.grid.tile(row, col)
    with _plainly(tile):
        return tile.name, radiometry.sample_tile(plan, Store(url), tile, count)


def fuse_one(row: int, col: int, url: str, stamp: str, basis: str) -> TileResult:
    """The task of a fusing worker: fuse_tile on what the store says; `basis` names harmonisation and pairs."""
    from pipeline.fuse import fuse_tile

    plan, _ = _opened(url, stamp)
    tile = plan.grid.tile(row, col)
    with _plainly(tile):
        return fuse_tile(plan, Store(url), tile, *_basis(url, stamp, basis))


@contextmanager
def _plainly(tile: Tile) -> Iterator[None]:
    """Log under the tile's name, and let errors go without their causes: those of GDAL cannot be pickled, and Dask
    would send home a nameless Exception in their place."""
    with logs.tile(tile.name):
        try:
            yield
        except MarstfnError as error:
            raise type(error)(str(error)) from None
        except Exception as error:
            log.exception("tile %s failed", tile.name)
            raise MarstfnError(f"{type(error).__name__}: {error} (its traceback is in the log)") from None


@lru_cache(maxsize=2)
def _opened(url: str, stamp: str) -> tuple[Plan, Mapping[str, pystac.Item]]:
    """Plan and items of a store, kept per process; `stamp` changes when the plan does."""
    store = Store(url)
    text, items = store.read(PLAN), store.read(ITEMS)
    if text is None or items is None:
        raise StoreError(f"{url} holds no {PLAN if text is None else ITEMS}; run the command that makes the plan first")
    version = _format(text)
    if version != FORMAT:
        raise StoreError(
            f"{store.join(PLAN)} has format version {version!r}, this program reads {FORMAT!r}; nothing was changed "
            "there. Choose another --store, or go on with the release that wrote it"
        )
    try:
        plan = Plan.model_validate_json(text)
    except ValueError as error:
        raise StoreError(f"{store.join(PLAN)} is not a plan: {error}; choose another --store") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pystac warns about hrefs its storage extension cannot parse
        found = pystac.ItemCollection.from_dict(json.loads(items))
    return plan, {item.id: item for item in found}


@lru_cache(maxsize=2)
def _basis(url: str, stamp: str, basis: str) -> tuple[Harmonisation, tuple[Pair, ...]]:
    plan, store = _opened(url, stamp)[0], Store(url)
    return _harmonisation(store, plan), pairs(plan, store)


def _format(text: bytes) -> Any:
    try:
        return json.loads(text).get("format")
    except (ValueError, AttributeError):
        return None


def _stamp(store: Store) -> str:
    text = store.read(PLAN)
    return fingerprint((text or b"").decode(errors="replace"))


def _harmonisation(store: Store, plan: Plan) -> Harmonisation:
    found = radiometry.read(store)
    identity = harmonise_fingerprint(plan, [ingest_fingerprint(plan, t) for t in plan.tiles])
    if found is None or found.fingerprint != identity:
        raise CubeError(f"{store.join(radiometry.NAME)} is missing or of other inputs; run the harmonise stage first")
    return found


def _reading(client: Client) -> str:
    """The resource that reading tasks ask for: IO, or on a cluster without such workers GPU."""
    return cluster.IO if cluster.slots(client, cluster.IO) else cluster.GPU


def _unfinished(store: Store) -> None:
    """Take back `complete` before a tile is made anew: readers must not take half a cube for a whole one."""
    try:
        cube.set_status(store, "in progress")
    except FileNotFoundError:
        return


def _writable(store: Store) -> Path | None:
    """Raise StoreError before anything is searched or computed, rather than after; the folder if it was made now."""
    new = store.local is not None and not store.local.exists()
    store.write("probe", b"")
    store.delete("probe")
    return store.local if new else None


def _stage(
    name: str,
    tiles: Sequence[Tile],
    todo: Sequence[Tile],
    listener: Listener,
    work: Callable[[], tuple[list[Any], list[Failure]]],
) -> list[Any]:
    """Run a stage and tell of it. Raises MarstfnError with the tiles that failed, after all others are done."""
    began = time.perf_counter()
    listener(StageStarted(name, len(tiles), len(tiles) - len(todo)))
    results, failures = work()
    listener(StageDone(name, time.perf_counter() - began, len(tiles) - len(failures), len(failures)))
    if failures:
        shown = "; ".join(f"{f.tile}: {f.error}" for f in failures[:3])
        raise MarstfnError(
            f"stage {name}: {len(failures)} of {len(tiles)} tiles failed ({shown}"
            f"{'; ...' if len(failures) > 3 else ''}). The other tiles are kept; "
            "run the same command again to go on from here"
        )
    return results
