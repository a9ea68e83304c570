"""From a request to a frozen plan: area, grid, search, scenes, weights, options."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pystac

from pipeline import aoi as areas
from pipeline import bandpass, catalog, cloudmask, items, memory, overrides, profiles, scenes, settings, supply, trained
from pipeline.aoi import AOI
from pipeline.errors import PlanError
from pipeline.events import Listener, Note, silent
from pipeline.grid import CELL, Grid
from pipeline.methods import window_side
from pipeline.outlook import outlook
from pipeline.outlook import summary as summary
from pipeline.plan import FORMAT, Options, Plan, WeightsRef
from pipeline.request import Request

TILE_SIDES = (480, 240, 120, 60)
"""Tile sides in 10 m pixels, the default first; a smaller one serves an area that would not fill 4 tiles."""

MAX_WORKER_MB = 3000.0
"""Bound of a fusing worker's memory beyond which a tile side is refused."""

BATCHED, FLOAT32 = 8, "float32"
"""Patches in one forward pass on a device, and in which precision where nothing was tried."""

TRAINED = ("auto", "network")
"""Methods that need weights."""

READ = ("landsat", "snow", "cirrus", "dilated_cloud", "cloud_mask", "nbar")
"""Options that shape what is read, by the names they have in a request."""

LIBRARIES = ("marstfn", "numpy", "scipy", "torch", "rasterio", "odc-geo", "odc-loader", "odc-stac", "xarray", "zarr")


def make_plan(
    request: Request,
    *,
    area: AOI | None = None,
    listener: Listener = silent,
    defaults: settings.Settings | None = None,
    patience: catalog.Patience | None = None,
) -> tuple[Plan, pystac.ItemCollection]:
    """The plan of `request` and the items it uses (hrefs unsigned), from one search of its catalogue.

    Raises AOIError, CatalogError, WeightsError or PlanError; nothing is written.
    """
    chosen = defaults or settings.load()
    area = area or read_area(request, chosen)
    source = profiles.resolve(request.catalog, request.base)
    # before the search: what is wrong with weights or options is told at once
    offered = _offered(request)
    options = _options(request, offered)
    cloudmask.find(options.cloud_mask)
    grid = covering(area, request.tile_px, max((w.patch for w in offered), default=60))
    _check_memory(grid, options, offered)
    wanted = scenes.Wanted(
        area.polygon.geom, request.first, request.last, grid.epsg, request.max_cloud, request.landsat,
        overrides.parse_all(request.radiometry), request.nbar,
    )  # fmt: skip
    selection = supply.find(source, wanted, patience or catalog.Patience(answer=chosen.timeout), listener)
    for note in selection.notes:
        listener(Note("catalog", note))
    frozen = items.collection(selection.items, source)
    plan = Plan(
        name=area.name,
        aoi=area.geojson,
        aoi_source=area.source,
        year=request.year,
        first=request.first,
        last=request.last,
        max_cloud=request.max_cloud,
        grid=grid,
        catalog=source.label,
        scenes=selection.scenes,
        radiometry=dict(selection.radiometry),
        nbar=dict(selection.nbar),
        dropped=selection.dropped,
        holes=selection.holes,
        weights=trained.used(offered, selection.scenes),
        options=options,
        items_sha256=items.sha256(frozen),
        # one made-up reference is enough: what is fused with it is no record of the ground
        simulated=any(items.is_simulated(item) for item in selection.items),
        versions=versions(),
    )
    bandpass.of_landsat(plan)  # whether every date has one
    listener(Note("plan", outlook(plan).headline, plan))
    return plan, frozen


def contradictions(plan: Plan, request: Request, area: AOI) -> list[str]:
    """What `request` asks otherwise than `plan` has it; empty where the plan may be gone on with. Needs no network.

    What a request leaves to be decided (tile side, threads, device) contradicts nothing.
    """
    offered = _offered(request)
    options = _options(request, offered)
    asked: dict[str, tuple[Any, Any]] = {
        **_inputs(plan, request, area),
        "weights": (tuple(w.sha256 for w in trained.used(offered, plan.scenes)), tuple(w.sha256 for w in plan.weights)),
    }
    decided = {
        "threads": request.threads == 0,
        "device": request.device == "auto",
        "precision": request.precision == "auto",
    }
    for name in Options.model_fields:
        if not decided.get(name, False):
            asked[name] = (getattr(options, name), getattr(plan.options, name))
    return _differing(asked)


def contradictory_inputs(plan: Plan, request: Request, area: AOI) -> list[str]:
    """What `request` would read otherwise than `plan` does, however it is fused; empty where the inputs may be used."""
    return _differing(_inputs(plan, request, area))


def refitted(plan: Plan, request: Request) -> Plan:
    """`plan` with its scenes and grid, fused as `request` wants it. Raises WeightsError or PlanError."""
    offered = _offered(request)
    options = _options(request, offered)
    _check_memory(plan.grid, options, offered)
    found = plan.model_copy(update={"weights": trained.used(offered, plan.scenes), "options": options})
    bandpass.of_landsat(found)
    return found


def _inputs(plan: Plan, request: Request, area: AOI) -> dict[str, tuple[Any, Any]]:
    """What shapes the inputs: (asked, of the plan) by name."""
    fixed = Options()
    return {
        "format": (FORMAT, plan.format),
        "area of interest": (area.geojson, plan.aoi),
        "year": (request.year, plan.year),
        "first day": (request.first, plan.first),
        "last day": (request.last, plan.last),
        "max_cloud": (request.max_cloud, plan.max_cloud),
        "catalog": (profiles.resolve(request.catalog, request.base).label, plan.catalog),
        "tile_px": (request.tile_px or plan.grid.tile_px, plan.grid.tile_px),
        **{name: (getattr(fixed, name), getattr(plan.options, name)) for name in ("mask_dilation", "time_shard")},
        **{name: (getattr(request, name), getattr(plan.options, name)) for name in READ},
        "radiometry": (tuple(request.radiometry), plan.options.radiometry),
        "adjustments of Sentinel-2": (
            bandpass.of_sentinel2(request.adjustments),
            bandpass.of_sentinel2(plan.options.adjustments),
        ),
    }


def _differing(asked: dict[str, tuple[Any, Any]]) -> list[str]:
    return [
        f"{name}: the plan has {_brief(has)}, asked is {_brief(wants)}"
        for name, (wants, has) in asked.items()
        if wants != has
    ]


def drift(plan: Plan) -> list[str]:
    """Libraries whose version differs from the one the plan was made with: results may differ in the last digit."""
    here = versions()
    return [
        f"{name} {plan.versions[name]} -> {here.get(name)}"
        for name in plan.versions
        if here.get(name) != plan.versions[name]
    ]


def read_area(request: Request, defaults: settings.Settings | None = None) -> AOI:
    """The area of interest of `request`, within the limits of the settings. Raises AOIError."""
    chosen = defaults or settings.load()
    return areas.read(request.aoi, base=request.base, max_km2=chosen.aoi_max_km2, max_bytes=chosen.aoi_max_bytes)


def store_url(request: Request, area: AOI) -> str:
    """Where the run is kept: `store` as asked, else `<name>-<year>` under the root, the AOI file's folder or `base`."""
    if request.store is not None:
        return _absolute(request.store, request.base)
    name = f"{area.name}-{request.year}"
    root = request.store_root
    if root is None:
        return str((area.folder or request.base) / name)
    return f"{root.rstrip('/')}/{name}" if "://" in root else str(Path(_absolute(root, request.base)) / name)


def _absolute(store: str, base: Path) -> str:
    if "://" in store:
        return store
    path = Path(store).expanduser()
    return str(path if path.is_absolute() else base / path)


def covering(area: AOI, tile_px: int | None, patch: int = 60) -> Grid:
    """The grid over `area`, at least one model window (`patch` px) wide and high, in tiles of `tile_px`.

    Without `tile_px` the largest of TILE_SIDES that cuts the plane into at least 4 tiles.
    """
    grid = Grid.covering(area.polygon)
    grid = _at_least(grid, -(-patch * 10 // CELL))
    if tile_px is None:
        # the 4th tile only counts where it is no sliver: compare areas, not numbers of tiles
        pixels = grid.columns * grid.rows * 36
        tile_px = next((side for side in TILE_SIDES if pixels >= 4 * side * side), TILE_SIDES[-1])
    return Grid(grid.epsg, grid.left, grid.top, grid.columns, grid.rows, tile_px)


def _at_least(grid: Grid, cells: int) -> Grid:
    """`grid` grown evenly to `cells` cells in both directions."""
    east, south = max(0, cells - grid.columns), max(0, cells - grid.rows)
    left, top = grid.left - east // 2 * CELL, grid.top + south // 2 * CELL
    return Grid(grid.epsg, left, top, grid.columns + east, grid.rows + south, grid.tile_px)


def versions() -> dict[str, str]:
    """Versions of the libraries that shape the result, and of GDAL and Python (major.minor)."""
    import rasterio

    found = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return found | {"gdal": rasterio.__gdal_version__, "python": ".".join(platform.python_version_tuple()[:2])}


def _offered(request: Request) -> tuple[WeightsRef, ...]:
    return trained.offered(request.weights, request.base) if request.method in TRAINED else ()


def _check_memory(grid: Grid, options: Options, offered: tuple[WeightsRef, ...]) -> None:
    """Refuse tiles that no ordinary worker can hold, before a worker dies of them."""
    patch = max((w.patch for w in offered), default=window_side(options.method))
    context = any(w.context for w in offered)

    def needed(side: int) -> float:
        asked = replace(grid, tile_px=side)
        return memory.fusing_of(asked, options.time_shard, options.batch, patch, context).megabytes

    if needed(grid.tile_px) > MAX_WORKER_MB:
        fits = [s for s in TILE_SIDES if needed(s) <= MAX_WORKER_MB]
        remedy = f"Choose a tile of at most {fits[0]} px" if fits else "Choose a smaller batch"
        raise PlanError(
            f"tiles of {grid.tile_px} px and batches of {options.batch} may need {needed(grid.tile_px):,.0f} MB in a "
            f"worker, more than {MAX_WORKER_MB:,.0f} MB; nothing was planned. {remedy}"
        )


def _options(request: Request, offered: tuple[WeightsRef, ...]) -> Options:
    patch = min((ref.patch for ref in offered), default=window_side(request.method))
    stride = request.stride or max(6, patch * 4 // 5 // 6 * 6)
    if stride > patch:
        raise PlanError(f"stride {stride} px is more than the patch side {patch} px: gaps would remain; choose less")
    device = _device(request)
    return Options(
        method=request.method,
        stride=stride,
        batch=request.batch or (2 if device == "cpu" else BATCHED),
        threads=request.threads or _cores(),
        device=device,
        precision=_precision(request, offered, device),
        min_reference_days=request.min_reference_days,
        max_reference_days=request.max_reference_days,
        bandpass=request.bandpass,
        adjustments=request.adjustments,
        scene_check=request.scene_check,
        registration=request.registration,
        **{name: getattr(request, name) for name in READ},
        radiometry=tuple(request.radiometry),
    )


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only; knows what a container may use
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _device(request: Request) -> Any:
    if request.device != "auto":
        return request.device
    if request.method not in TRAINED:
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "cpu"  # mps only when asked for: it was not measured


def _precision(request: Request, offered: tuple[WeightsRef, ...], device: str) -> Any:
    """As asked for; else what all weights do best in on this machine's device. On a processor half precision was never
    worth it, and a scheduler's devices are not at hand: both float32."""
    if request.precision != "auto":
        return request.precision
    if device != "cuda" or request.scheduler is not None:
        return FLOAT32
    import torch

    if not torch.cuda.is_available():
        return FLOAT32
    found = {_tried(ref.source, ref.sha256, request.batch or BATCHED) for ref in offered}
    return found.pop() if len(found) == 1 else FLOAT32


@cache
def _tried(source: str, sha256: str, batch: int) -> str:
    from marstfn.precision import calibrate
    from marstfn.weights import load

    return calibrate(load(source), "cuda", batch=batch)


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
