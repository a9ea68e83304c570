"""From a request to a frozen plan: area, grid, search, scenes, weights, options."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import platform
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import pystac

from marstfn import weights as weights_files
from pipeline import aoi as areas
from pipeline import catalog, profiles, scenes, settings
from pipeline.aoi import AOI
from pipeline.errors import CatalogError, PlanError, WeightsError
from pipeline.events import Listener, Note, silent
from pipeline.grid import CELL, Grid
from pipeline.plan import Options, Plan, WeightsRef, fingerprint
from pipeline.profiles import Source
from pipeline.request import Request

log = logging.getLogger(__name__)

TILE_SIDES = (480, 240, 120, 60)
"""Tile sides in 10 m pixels, the default first; a smaller one serves an area that would not fill 4 tiles."""

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
    source = profiles.resolve(request.catalog)
    # before the search: what is wrong with files or options is told at once
    offered = _weights(request)
    grid = covering(area, request.tile_px, max((w.patch for w in offered), default=60))
    wanted = scenes.Wanted(area.polygon.geom, request.first, request.last, grid.epsg, request.max_cloud)
    patience = patience or catalog.Patience(answer=chosen.timeout)
    found = catalog.search(
        source, area.polygon.geom.bounds, request.first, request.last, patience=patience, listener=listener
    )
    for note in found.notes:
        listener(Note("catalog", note))
    selection = scenes.choose(found.items, source, wanted)
    _check_both(selection, found, request, source, wanted, patience)
    items = collection(selection.items, source)
    has_pan = any(s.pan_items for s in selection.scenes)
    plan = Plan(
        name=area.name,
        aoi=area.geojson,
        aoi_source=area.source,
        year=request.year,
        grid=grid,
        catalog=source.label,
        scenes=selection.scenes,
        radiometry=dict(selection.radiometry),
        dropped=selection.dropped,
        weights=_used(offered, request, has_pan),
        options=_options(request, offered),
        items_sha256=items_sha256(items),
        simulated=all(is_simulated(item) for item in selection.items),
        versions=versions(),
    )
    listener(Note("plan", f"{plan.name} {plan.year}: {len(plan.scenes)} scenes in {_tiles(plan.grid)} tiles", plan))
    return plan, items


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


def collection(items: Iterable[Mapping[str, Any]], source: Source) -> pystac.ItemCollection:
    """The items as frozen beside the plan: only the assets a run reads, hrefs without signatures."""
    kept = []
    for item in items:
        product = source.profile.product_of(item.get("collection"))
        keys = set(product.keys if product else item["assets"])
        assets = {k: {**a, "href": unsigned(a["href"])} for k, a in item["assets"].items() if k in keys}
        links = [link for link in item.get("links", []) if link.get("rel") == "self"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pystac warns about hrefs its storage extension cannot parse
            kept.append(pystac.Item.from_dict({**item, "assets": assets, "links": links}))
    kept.sort(key=lambda i: i.id)
    return pystac.ItemCollection(kept, clone_items=False)


def items_sha256(items: pystac.ItemCollection) -> str:
    """Hash of an item collection, the same before and after it is written to JSON and read back."""
    return fingerprint(json.loads(json.dumps([item.to_dict(transform_hrefs=False) for item in items])))


def unsigned(href: str) -> str:
    """`href` without a signature or token that a catalogue may have put into its query."""
    parts = urlsplit(href)
    secrets = {"sig", "x-amz-signature", "x-goog-signature", "signature", "token", "access_token"}
    if not secrets & {key.lower() for key, _ in parse_qsl(parts.query, keep_blank_values=True)}:
        return href
    return urlunsplit(parts._replace(query=""))


def is_simulated(item: Mapping[str, Any]) -> bool:
    """Whether an item says that it is simulated."""
    properties = item["properties"]
    return properties.get("simulated", properties.get("marstfn:simulated")) is True


def versions() -> dict[str, str]:
    """Versions of the libraries that shape the result, and of GDAL and Python (major.minor)."""
    import rasterio

    found = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return found | {"gdal": rasterio.__gdal_version__, "python": ".".join(platform.python_version_tuple()[:2])}


def _weights(request: Request) -> tuple[WeightsRef, ...]:
    """The sets of weights the request names, checked, by content; none for methods that need none."""
    if request.method != "network":
        return ()
    names = [request.weights] if isinstance(request.weights, str) else request.weights
    names = list(weights_files.SHIPPED) if names == ["auto"] else names
    refs = [_reference(name, request.base) for name in names]
    if len({ref.pan for ref in refs}) < len(refs):
        kind = "with" if refs[0].pan else "without"
        raise WeightsError(f"weights {', '.join(names)} are both {kind} the panchromatic band; give one of each kind")
    if len({ref.patch for ref in refs}) > 1:
        sides = ", ".join(f"{ref.source}: {ref.patch} px" for ref in refs)
        raise WeightsError(f"weights of one run must have one patch side ({sides}); give sets trained alike")
    return tuple(sorted(refs, key=lambda ref: not ref.pan))


def _reference(name: str, base: Path) -> WeightsRef:
    place = name if name in weights_files.SHIPPED else _absolute(name, base)
    try:
        loaded = weights_files.load(place)
    except (ValueError, OSError) as error:
        raise WeightsError(f"{error} (nothing was planned)") from error
    patch = loaded.config.patch
    if patch % 6 or patch < 12:
        raise WeightsError(
            f"weights {name}: their patch side {patch} px is not a multiple of 6 px, so it does not fit the lattice; "
            "nothing was planned. Use weights trained on another patch side"
        )
    return WeightsRef(source=place, sha256=loaded.sha256, pan=loaded.config.pan, patch=patch)


def _used(offered: tuple[WeightsRef, ...], request: Request, has_pan: bool) -> tuple[WeightsRef, ...]:
    """Of the weights offered those the scenes can feed; scenes without pan need a set without it."""
    if request.method != "network":
        return ()
    used = tuple(ref for ref in offered if has_pan or not ref.pan)
    if not used:
        raise PlanError(
            f"weights {offered[0].source} need the panchromatic band, and the catalogue {request.catalog} has none for "
            "this area and year; nothing was planned. Use marstfn-nopan (or auto), or a catalogue with Level-1 scenes"
        )
    return used


def _options(request: Request, offered: tuple[WeightsRef, ...]) -> Options:
    patch = min((ref.patch for ref in offered), default=60)
    stride = request.stride or max(6, patch * 4 // 5 // 6 * 6)
    if stride > patch:
        raise PlanError(f"stride {stride} px is more than the patch side {patch} px: gaps would remain; choose less")
    return Options(
        method=request.method,
        stride=stride,
        batch=request.batch,
        threads=request.threads or _cores(),
        device=_device(request),
        min_reference_days=request.min_reference_days,
        max_reference_days=request.max_reference_days,
        bandpass=request.bandpass,
        scene_check=request.scene_check,
    )


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only; knows what a container may use
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _device(request: Request) -> Any:
    if request.device != "auto":
        return request.device
    if request.method != "network":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "cpu"  # mps only when asked for: it was not measured


def _check_both(
    selection: scenes.Chosen,
    found: catalog.Found,
    request: Request,
    source: Source,
    wanted: scenes.Wanted,
    patience: catalog.Patience,
) -> None:
    """Raise CatalogError, with the months that do have scenes, unless both sensors have some."""
    have = {s.sensor for s in selection.scenes}
    missing = [role for role in ("sentinel2", "landsat8") if role not in have]
    if not missing:
        return
    lines = []
    for role in ("landsat8", "sentinel2"):
        usable = scenes.months_of(selection.scenes, role)
        if usable:
            lines.append(f"{_TITLES[role]}: {', '.join(usable)}")
            continue
        returned = {i["id"] for i in found.items.get(role, ())}
        why = Counter(d.why for d in selection.dropped if d.item in returned)
        reasons = "; ".join(f"{count} x {text}" for text, count in why.most_common(3))
        nearby = _nearby_months(role, request, source, wanted, patience)
        lines.append(
            f"{_TITLES[role]}: none from {request.first} to {request.last}"
            + (f" ({reasons})" if reasons else "")
            + (f", but in {nearby}" if nearby else ", nor in the years before and after")
        )
    raise CatalogError(
        f"catalogue {source.label} has no {' and no '.join(_TITLES[role] for role in missing)} scenes for "
        f"{request.year} that serve this area; both sensors are needed and nothing was planned. Months with scenes: "
        f"{'. '.join(lines)}. Choose another year or dates, or check that longitude and latitude are not swapped"
    )


_TITLES = {"landsat8": "Landsat 8", "sentinel2": "Sentinel-2"}


def _nearby_months(
    role: str, request: Request, source: Source, wanted: scenes.Wanted, patience: catalog.Patience
) -> str:
    """Months from the year before to the year after in which `role` has usable scenes; empty if none."""
    product = source.profile.product("landsat8" if role == "landsat8" else "sentinel2")
    assert product is not None
    from dataclasses import replace
    from datetime import date

    first, last = date(request.year - 1, 1, 1), date(request.year + 1, 12, 31)
    only = replace(source, profile=replace(source.profile, products=(product,)))
    found = catalog.search(only, wanted.area.bounds, first, last, patience=patience)
    wider = replace(wanted, first=first, last=last, max_cloud=100.0)
    return ", ".join(scenes.months_of(scenes.choose(found.items, only, wider).scenes, role))


def _tiles(grid: Grid) -> int:
    rows, columns = grid.tile_shape
    return rows * columns
