"""The job from request to finished cube, stage by stage; each stage goes on where a killed one stopped."""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pystac
from distributed import Client

from pipeline import audit as auditing
from pipeline import (
    cluster,
    cube,
    growth,
    hosts,
    lease,
    ledger,
    logs,
    memory,
    planner,
    publish,
    registration,
    reread,
    retries,
    sampling,
    settings,
    status,
    units,
    workers,
    yields,
)
from pipeline import harmonise as radiometry
from pipeline.errors import CubeError, MarstfnError, StoreError
from pipeline.events import Event, Listener, Note, StageDone, StageStarted, TileDone, silent
from pipeline.grid import Tile
from pipeline.harmonise import Harmonisation, harmonise_fingerprint
from pipeline.ingest import TileResult, ingest_fingerprint
from pipeline.lease import LOCK
from pipeline.plan import Plan, fingerprint, parsed
from pipeline.request import Request
from pipeline.shifts import SceneShift
from pipeline.store import FUSED, INPUTS, ITEMS, LEDGER, PLAN, Store, Unsupported
from pipeline.tasks import Failure, map_tiles
from pipeline.views import Truth
from pipeline.workers import pairs

if TYPE_CHECKING:
    from pipeline.gate import Decision

log = logging.getLogger(__name__)

PAIRS = f"{LEDGER}/pairs.json"
REFITTED = "refitted.json"
"""The plan that is about to take the place of one by which nothing is fused yet."""
MEMORY = 0.8
"""Share of a worker's memory limit that is planned with."""
TOLD = 5
"""Items without pixels that are told one by one."""


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


Compare = Callable[[Plan, Request, Any], list[str]]


def prepare(
    request: Request, listener: Listener = silent, *, area: Any = None, compare: Compare = planner.contradictions
) -> Job:
    """The job of a request: the plan frozen in its store, or a new one, frozen there now.

    A store of which nothing is fused yet may be fused otherwise than its plan has it, from the same inputs.
    Raises StoreError, naming the parameters by which `compare` tells the store's plan from the request, where it holds
    another plan; nothing is changed there then.
    """
    defaults = settings.load()
    area = area or planner.read_area(request, defaults)
    store = Store(planner.store_url(request, area))
    listener(Note("area", area.line))
    listener(Note("store", store.url))
    store.reach()
    text = store.read(PLAN)
    if text is not None:
        if store.read(REFITTED) is not None:
            with alone(store):
                _refit(store)
        if store.read(f"{growth.NEXT}/{PLAN}") is not None:
            with alone(store):
                growth.settle(store)
        job = open_job(store)
        differing = compare(job.plan, request, area)
        if differing and _unfused(store) and not planner.contradictory_inputs(job.plan, request, area):
            job = _planned_anew(job, request)
            listener(Note("store", f"going on with the inputs in {store.url}: {'; '.join(differing)}"))
            differing = []
        if differing:
            raise StoreError(
                f"{store.url} holds another plan: {'; '.join(differing)}. Nothing was changed there. "
                "Choose another --store, or ask for what it holds to go on with it"
            )
        changed = planner.drift(job.plan)
        if changed:
            listener(Note("warning", f"libraries have changed since the plan was made: {', '.join(changed)}"))
        if request.update:
            return _extended(job, request, area, listener, defaults)
        listener(Note("plan", f"going on with the plan in {store.url}", job.plan))
        if growth.growing(job.plan, store.written(PLAN)) and status.read(store).complete:
            _tell_new(job, request, area, listener, defaults)
        return job
    made, held = _writable(store), False
    try:
        with alone(store):
            held = True
            # whoever had the lock a moment ago may have planned
            if store.read(PLAN) is None:
                plan, items = planner.make_plan(request, area=area, listener=listener, defaults=defaults)
                # the plan comes last: where it is, everything is
                store.write(ITEMS, json.dumps(items.to_dict(transform_hrefs=False)).encode())
                if _first(store, plan):
                    return Job(plan, store, {item.id: item for item in items})
    except BaseException:
        if made is not None and held:  # else it is another run's by now
            with suppress(OSError):  # not empty: something was kept there
                (made / LOCK).unlink(missing_ok=True)
                made.rmdir()
        raise
    return prepare(request, listener, area=area, compare=compare)


def _extended(job: Job, request: Request, area: Any, listener: Listener, defaults: settings.Settings) -> Job:
    """The job with what has come into the catalogue since its plan: a new plan in its store, which reads only that."""
    store = job.store
    if growth.unfinished(store):
        listener(
            Note("update", f"going on with the update begun in {store.url}; the catalogue is asked when it is done")
        )
        return job
    with alone(store):
        plan, items = _replanned(job, request, area, listener, defaults)
        found = {item.id: item for item in items}
        differing = growth.changes(job.plan, job.items, plan, found)
        text = differing.text(store.written(PLAN))
        if not differing:
            listener(Note("update", f"{text}: going on with it", job.plan))
            return job
        growth.begin(store, plan, items)
        listener(
            Note("update", f"{text}: only these are read; all dates are fused anew, as each looks at its neighbours")
        )
    return Job(plan, store, found)


def _replanned(
    job: Job, request: Request, area: Any, listener: Listener, defaults: settings.Settings
) -> tuple[Plan, pystac.ItemCollection]:
    """What the job's plan would be now: scenes of now, all that was decided then."""
    plan, items = planner.make_plan(request, area=area, listener=listener, defaults=defaults)
    return plan.model_copy(update={"grid": job.plan.grid, "options": job.plan.options}), items


def _tell_new(job: Job, request: Request, area: Any, listener: Listener, defaults: settings.Settings) -> None:
    """Say what an update would bring to a finished series whose year was not over when it was planned."""
    try:
        plan, items = _replanned(job, request, area, silent, defaults)
    except MarstfnError as error:
        listener(Note("warning", f"whether there are new scenes cannot be told: {error}"))
        return
    found = growth.changes(job.plan, job.items, plan, {item.id: item for item in items})
    if found:
        listener(Note("update", f"{found.text(job.store.written(PLAN))}; --update extends the series by them", found))


def _planned_anew(job: Job, request: Request) -> Job:
    """The same inputs under a plan that fuses as the request wants it."""
    with alone(job.store):
        plan = planner.refitted(job.plan, request)
        job.store.write(REFITTED, plan.model_dump_json(indent=1).encode())
        _refit(job.store)
    return Job(plan, job.store, job.items)


def _unfused(store: Store) -> bool:
    """Whether nothing is fused yet by the plan in force, nor by one before it whose cube is still there to be read."""
    return not store.names(f"{LEDGER}/fuse") and not growth.unfinished(store)


def _refit(store: Store) -> None:
    """Bring a change of plan that was decided to its end, however often it was interrupted: of the cube so far only the
    empty template and tiles that were not entered are there."""
    text = store.read(REFITTED)
    if text is None:
        return
    store.clear(FUSED)
    cube.adopt_inputs(parsed(text, store.join(REFITTED)), store)
    store.write(PLAN, text)
    store.delete(REFITTED)


def open_job(store: Store) -> Job:
    """The job whose plan a store holds. Raises StoreError where there is none, or one of another format."""
    plan, items = workers.opened(store.url, workers.stamped(store))
    return Job(plan, store, items)


def ingest(job: Job, client: Client, listener: Listener = silent) -> None:
    """Read all tiles that are not in the ledger yet, and tell of items that gave no pixel although they cover the area.

    Raises MarstfnError naming the tiles that failed, AssetError where a whole sensor gave nothing, ClusterError where
    a worker has less memory than a tile may take.
    """
    plan, store = job.plan, job.store
    memory.require(plan, cluster.described(client), threads=settings.load().io_threads)
    if cube.create_inputs(plan, store):
        ledger.clear(store, "ingest")
    tiles = list(plan.tiles)
    prints = {t.name: ingest_fingerprint(plan, t) for t in tiles}
    left = set(ledger.unfinished(store, "ingest", prints, store.sizes(INPUTS)))
    todo = [t for t in tiles if t.name in left]
    if todo and not growth.unfinished(store):
        _unfinished(store)
    reread.begin(store, todo)
    results = stage("ingest", tiles, todo, listener, lambda: _read(job, client, todo, listener))
    changed = reread.settle(plan, store)
    if changed:
        text = f"{len(changed)} tiles hold other pixels than before ({', '.join(changed[:3])}"
        listener(Note("warning", f"{text}{', ...' if len(changed) > 3 else ''}): what was made of them is made anew"))
    growth.ingested(store)
    missed = yields.missed(plan, store, job.items)
    yields.write(store, missed)
    for item in missed[:TOLD]:
        listener(Note("warning", item.text))
    if len(missed) > TOLD:
        text = f"{len(missed) - TOLD} more items gave no pixels: {store.join(yields.NAME)} lists them all"
        listener(Note("warning", text))
    repeated = retries.added(result.repeats for result in results)
    if repeated:
        listener(Note("retries", retries.told(repeated), repeated))


def _read(job: Job, client: Client, todo: Sequence[Tile], listener: Listener) -> tuple[list[TileResult], list[Failure]]:
    """Read tiles unit by unit, then by themselves those that make no unit and those of units that failed."""
    plan, store = job.plan, job.store
    where, resource = (store.url, workers.stamped(store)), reading(client)
    side = _side(plan, client, resource) if len(todo) > 1 else 1
    cells, alone = units.divided(plan.grid, todo, side)
    left = {t.name: t for t in todo}
    results: list[TileResult] = []
    if cells:
        mb = units.unit_bytes(plan, side, settings.load().io_threads) / 1e6
        text = f"{len(todo) - len(alone)} tiles are read in units of {side} x {side}, at most {mb:.0f} MB each"
        listener(Note("unit", text, side))
        in_cell: dict[str, list[str]] = {}
        for tile in todo:
            in_cell.setdefault(units.cell(plan.grid, side, tile.row // side, tile.col // side).name, []).append(
                tile.name
            )

        def hear(event: Event) -> None:
            """Tell of tiles; one of a unit that failed gets another chance by itself."""
            if isinstance(event, TileDone):
                names = in_cell[event.tile]
                timings = {k: v / len(names) for k, v in event.timings.items()}
                for name in names:
                    del left[name]
                    listener(TileDone(event.stage, name, event.seconds / len(names), timings))

        results, failed = map_tiles(
            client, "ingest", workers.ingest_unit, cells, (*where, side), resource=resource, listener=hear, retries=0
        )
        if failed:
            log.warning("%d reading units failed; their tiles are read by themselves", len(failed))
    single, failures = map_tiles(
        client, "ingest", workers.ingest_one, list(left.values()), where, resource=resource, listener=listener
    )
    return results + single, failures


def _side(plan: Plan, client: Client, resource: str) -> int:
    """Tiles along a side of a reading unit, by the memory of the workers that read and by their number."""
    defaults = settings.load()
    if not defaults.unit_mb:
        return 1
    workers = [w for w in cluster.described(client) if w["resources"].get(resource)]
    found = [(w["memory_limit"] or math.inf, w["resources"][resource]) for w in workers]
    shares = [(MEMORY * limit - memory.idle(defaults.io_threads)) / tasks for limit, tasks in found]
    room = min([defaults.unit_mb * 1e6, *shares])
    return units.side(plan, room, cells=len(found), threads=defaults.io_threads)


def harmonise(job: Job, client: Client, listener: Listener = silent) -> Harmonisation:
    """Pair the dates and fit Landsat to Sentinel-2 on a bounded sample; kept in the store, made once.

    Raises CubeError where tiles are not ingested, MarstfnError where sampling fails.
    """
    plan, store = job.plan, job.store
    tiles = list(plan.tiles)
    identity = harmonise_fingerprint(plan, [ingest_fingerprint(plan, t) for t in tiles])
    _audited(job, client, listener)
    found = pairs(plan, store)
    store.write(PAIRS, json.dumps([p.as_dict() for p in found]).encode())
    labels = [s.label for s in plan.of("landsat8")]
    listener(Note("pairs", f"{sum(bool(p.references) for p in found)} of {len(found)} Landsat dates have references",
                  [p.as_dict() | {"label": labels[p.landsat]} for p in found]))  # fmt: skip
    kept = radiometry.read(store)
    sampled = sampling.sampled(tiles) if plan.options.scene_check else []
    if kept is not None and kept.fingerprint == identity:
        listener(StageStarted("harmonise", len(sampled), len(sampled)))
        listener(StageDone("harmonise", 0.0, len(sampled), 0))
        return kept
    shifts = _registered(job, client, listener) if plan.options.registration else ()
    where = (store.url, workers.stamped(store), -(-sampling.SAMPLE // max(1, len(sampled))), shifts)
    results = stage("harmonise", sampled, sampled, listener, lambda: map_tiles(
        client, "harmonise", workers.sample_one, sampled, where, resource=reading(client), listener=listener,
    ))  # fmt: skip
    samples = [samples for _, samples in sorted(results, key=lambda r: r[0])]
    result = radiometry.fit_scenes(plan, samples, identity, shifts)
    radiometry.write(store, result)
    applied = sum(fit.applied for scene in result.scenes for fit in scene.bands)
    listener(Note("harmonise", f"{applied} of {6 * len(result.scenes)} Landsat bands corrected", result))
    return result


def _audited(job: Job, client: Client, listener: Listener) -> None:
    """Judge the offset of every date, and of every item of a mosaic, by its pixels and warn of those that are wrong,
    each time the run is gone on with; what was found is kept in the store."""
    plan, store = job.plan, job.store
    identity = auditing.audit_fingerprint(plan, [ingest_fingerprint(plan, t) for t in plan.tiles])
    kept = auditing.read(store)
    if kept is None or kept.fingerprint != identity:
        chosen = auditing.looked_at(list(plan.tiles))
        where = (store.url, workers.stamped(store))
        results = stage("audit", chosen, chosen, listener, lambda: map_tiles(
            client, "audit", workers.audit_one, chosen, where, resource=reading(client), listener=listener,
        ))  # fmt: skip
        found, by_name = sorted(results, key=lambda r: r[0]), {tile.name: tile for tile in chosen}
        owned = [auditing.owners(plan, by_name[name], job.items) for name, _ in found]
        kept = auditing.judge(plan, [samples for _, samples in found], identity, owned)
        auditing.write(store, kept)
    for text in kept.warnings(plan):
        log.warning("%s", text)
        listener(Note("warning", text))


def gate(job: Job, client: Client, listener: Listener = silent) -> Decision:
    """Find out season by season whether the network or a free method is to be used; kept in the store, made once.

    Raises CubeError where there is no harmonisation, MarstfnError where scoring fails.
    """
    from pipeline import gate as judging

    plan, store = job.plan, job.store
    asked = judging.forced(plan)
    if asked is not None:
        return asked
    fits, found = workers.harmonised(plan, store), pairs(plan, store)
    identity = judging.gate_fingerprint(plan, fits, found)
    kept, places = judging.read(store), judging.places(plan)
    known = kept is not None and kept.fingerprint == identity
    where = (store.url, workers.stamped(store), fingerprint({"gate": identity}))
    results = stage("gate", places, [] if known else places, listener, lambda: map_tiles(
        client, "gate", workers.gate_one, [] if known else places, where, resource=cluster.GPU, listener=listener,
    ))  # fmt: skip
    decision = kept if known and kept is not None else judging.decide(plan, results, identity)
    judging.write(store, decision)
    spent = f"{decision.patches} patches, {100 * judging.share(plan, decision.patches):.1f} % of the year's"
    listener(Note("gate", f"{decision.text} ({spent})", judging.rows(decision)))
    return decision


def _registered(job: Job, client: Client, listener: Listener) -> tuple[SceneShift, ...]:
    """The shift of every Landsat date, before anything else is asked of it: a radiometric fit over edges that do not
    match is none. Tells of each scene rejected."""
    plan, store = job.plan, job.store
    chosen = [plan.grid.tile(*place) for place in registration.windows(plan)]
    where = (store.url, workers.stamped(store))
    results = stage("register", chosen, chosen, listener, lambda: map_tiles(
        client, "register", workers.measure_one, chosen, where, resource=reading(client), listener=listener,
    ))  # fmt: skip
    shifts = registration.decide(plan, [found for _, found in sorted(results, key=lambda r: r[0])])
    for shift in shifts:
        log.info("%s is %s", shift.label, shift.text)
        if shift.decision == "rejected":
            text = f"{shift.label} is not used, its pixels are masked: {shift.reason}"
            listener(Note("warning", f"{text}. --no-registration takes it as it is"))
    count = Counter(s.decision for s in shifts)
    listener(Note("register", ", ".join(f"{n} of {len(shifts)} Landsat dates {d}" for d, n in count.items()), shifts))
    return shifts


def fuse(job: Job, client: Client, listener: Listener = silent) -> None:
    """Fuse all tiles that are not in the ledger yet. Raises MarstfnError naming the tiles that failed."""
    from pipeline.fuse import fuse_fingerprint  # only where tiles are fused is torch needed

    plan, store = job.plan, job.store
    memory.require(plan, cluster.described(client), threads=settings.load().io_threads)
    growth.retire(store)
    if cube.create_fused(plan, store):
        ledger.clear(store, "fuse")
    fits, found = workers.harmonised(plan, store), pairs(plan, store)
    chosen = workers.decided(plan, store, fits, found).methods
    cube.set_shifts(plan, store, fits.shifts)
    tiles = list(plan.tiles)
    prints = {t.name: fuse_fingerprint(plan, t, fits, found, chosen) for t in tiles}
    left = set(ledger.unfinished(store, "fuse", prints, store.sizes(FUSED)))
    todo = [t for t in tiles if t.name in left]
    if todo:
        _unfinished(store)
    basis = fingerprint({"harmonisation": fits.content, "pairs": [p.as_dict() for p in found], "methods": chosen})
    where = (store.url, workers.stamped(store), basis)
    stage("fuse", tiles, todo, listener, lambda: map_tiles(
        client, "fuse", workers.fuse_one, todo, where, resource=cluster.GPU, listener=listener,
    ))  # fmt: skip


def finish(job: Job, listener: Listener = silent, *, truth: Truth | None = None, began: float | None = None) -> Summary:
    """Report, pictures and STAC item; last of all the cube's status becomes `complete`.

    Raises CubeError where a tile is missing from the ledger. `began`: time.monotonic() at the start of the run.
    """
    from pipeline import gate as judging
    from pipeline.fuse import fuse_fingerprint

    plan, store = job.plan, job.store
    fits, found = workers.harmonised(plan, store), pairs(plan, store)
    decision = workers.decided(plan, store, fits, found)
    prints = {t.name: fuse_fingerprint(plan, t, fits, found, decision.methods) for t in plan.tiles}
    missing = ledger.unfinished(store, "fuse", prints, store.sizes(FUSED))
    if missing:
        raise CubeError(
            f"{store.join(FUSED)} lacks {len(missing)} tiles ({', '.join(missing[:5])}...); it stays in progress. "
            "Run the same command again: finished tiles are kept"
        )
    published = publish.finish(store, plan, methods=decision.methods, truth=truth, listener=listener)
    cube.set_methods(store, judging.rows(decision), decision.methods)
    cube.set_missed(store, [m.line for m in yields.read(store)])
    cube.set_status(store, "complete")
    growth.complete(store)
    listener(Note("cube", store.join(FUSED)))
    return Summary(
        store.join(FUSED), store.url, len(plan.tiles), len(plan.of("landsat8")), len(plan.of("sentinel2")),
        time.monotonic() - began if began is not None else 0.0, published.files,
    )  # fmt: skip


def run(request: Request, listener: Listener = silent, *, truth: Truth | None = None) -> Summary:
    """All stages, on the cluster the request names or an embedded one."""
    began = time.monotonic()
    job = prepare(request, listener)
    with alone(job.store), hosts.announced(listener):
        with cluster.connect(request.scheduler, device=job.plan.options.device, defaults=settings.load()) as client:
            logs.forward(client)
            listener(Note("dashboard", client.dashboard_link))
            ingest(job, client, listener)
            harmonise(job, client, listener)
            gate(job, client, listener)
            fuse(job, client, listener)
        return finish(job, listener, truth=truth, began=began)


@contextmanager
def alone(store: Store) -> Iterator[None]:
    """Keep other runs (on a disk: of this machine) out of the store, and clear what a killed one left half-written.

    Raises StoreError where another run is at work in it. The lock dies with its process, however that ends; in an
    object store it does so within lease.LIFE.
    """
    if store.local is None:
        with lease.held(store):
            yield
        return
    try:
        store.local.mkdir(parents=True, exist_ok=True)
        opened = (store.local / LOCK).open("a+")
    except OSError as error:
        raise StoreError(
            f"cannot write to {store.url}: {error}; nothing was read or changed there. Make it writable, or choose "
            "another --store"
        ) from error
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise StoreError(
                f"another run ({file.read().strip() or 'unknown'}) is at work in {store.url}; two would spoil each "
                "other's tiles. Wait for it, or choose another --store"
            ) from error
        with suppress(OSError):  # a full disk: it is the lock that counts, not what it says
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), f"process {os.getpid()}".encode())
        swept = store.sweep()
        if swept:
            log.info("removed %d half-written objects of an earlier run from %s", swept, store.url)
        yield


def reading(client: Client) -> str:
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
    new = store.local is not None and not store.present
    probe = f".marstfn-{uuid.uuid4().hex}"
    store.write(probe, b"")
    store.delete(probe)
    found = store.read(ITEMS)
    if found is not None and not _ours(found):
        raise StoreError(
            f"{store.join(ITEMS)} is not a list of scenes that this program wrote, and would be lost; nothing was "
            "changed there. Choose another --store"
        )
    return store.local if new else None


def _first(store: Store, plan: Plan) -> bool:
    """Write the plan of a new store; False where another run has written one, which then is in force."""
    data = plan.model_dump_json(indent=1).encode()
    try:
        return store.create(PLAN, data) is not None or store.read(PLAN) == data
    except Unsupported:
        store.write(PLAN, data)
        return True


def _ours(items: bytes) -> bool:
    try:
        return bool(json.loads(items)["type"] == "FeatureCollection")
    except (ValueError, KeyError, TypeError):
        return False


def stage(
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
            f"{'; ...' if len(failures) > 3 else ''}). The other tiles are kept: "
            "once the cause is mended the same command goes on from here"
        )
    return results
