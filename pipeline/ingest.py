"""One tile of a year, from assets to whole shards of the input cube."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

import numpy as np
import pystac
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from marstfn.bands import BANDS, FINE, PAN_RES
from pipeline import cloudmask, cube, growth, ledger, settings
from pipeline.cube import CLEAR, FILL, MASKED, NOTHING, Group
from pipeline.errors import AssetError, CatalogError
from pipeline.grid import Tile
from pipeline.growth import Earlier
from pipeline.plan import FORMAT, Plan, Scene, fingerprint
from pipeline.profiles import Product, Role, resolve
from pipeline.reader import Asset, Kind, load
from pipeline.retries import Repeats
from pipeline.sensors import MaskOptions, fmask_clear, grown, landsat_clear, sentinel2_clear
from pipeline.store import INPUTS, Store
from pipeline.uniform import MASK, SATURATION, keys, product_of, stac_cfg, uniform

MASKING = ("mask_dilation", "snow", "cirrus", "dilated_cloud", "cloud_mask")
"""Options that shape the masks."""

LIBRARIES = ("rasterio", "odc-stac", "odc-loader", "odc-geo", "numpy", "scipy")
"""Whose versions shape the pixels of the inputs."""

REPEATED = "repeated"
"""Name, in the statistics of a tile's record, of the requests that had to be repeated, by host."""


@dataclass(frozen=True, slots=True)
class TileResult:
    """What a tile task returns: small, whatever the tile."""

    stage: str
    tile: str
    seconds: float
    timings: dict[str, float] = field(default_factory=dict)
    repeats: dict[str, int] = field(default_factory=dict)
    """Requests that had to be repeated, by host."""


def ingest_fingerprint(plan: Plan, tile: Tile) -> str:
    """Of everything that shapes the stored inputs of a tile."""
    return fingerprint([_common_fingerprint(plan), tile.name])


def _common_fingerprint(plan: Plan) -> str:
    """What the tiles of a plan share; kept, for thousands of tiles ask."""
    global _last
    if _last is not None and _last[0] is plan:
        return _last[1]
    found = fingerprint(
        {
            **reading_rules(plan),
            "scenes": [s.model_dump(mode="json") for s in plan.scenes],
            "items": plan.items_sha256,
            "radiometry": {k: v.model_dump(mode="json") for k, v in plan.radiometry.items()},
            "nbar": {k: v.model_dump(mode="json") for k, v in plan.nbar.items()},
        }
    )
    _last = plan, found
    return found


def reading_rules(plan: Plan) -> dict[str, Any]:
    """All that shapes the inputs beside the scenes: a date read under equal rules need not be read again."""
    grid = plan.grid
    return {
        "format": FORMAT,
        "grid": [grid.epsg, grid.left, grid.top, grid.columns, grid.rows, grid.tile_px],
        # how it is read, not where it was served
        "catalog": "+".join(part.partition("@")[0] for part in plan.catalog.split("+")),
        "masks": [getattr(plan.options, name) for name in MASKING],
        "time_shard": plan.options.time_shard,
        "versions": {k: v for k, v in plan.versions.items() if k in LIBRARIES},
    }


_last: tuple[Plan, str] | None = None


def ingest_tile(plan: Plan, store: Store, tile: Tile, items: Mapping[str, pystac.Item]) -> TileResult:
    """Read all scenes of the plan for one tile and store them, block by block in time, then enter the ledger.

    Raises AssetError naming item, asset and tile where an asset cannot be read; the tile is then not in the ledger.
    """
    began = time.perf_counter()
    spent = {"read": 0.0, "write": 0.0, "check": 0.0}
    stats: dict[str, Any] = {}
    objects: list[str] = []
    repeats = Repeats()
    earlier = growth.earlier(store, plan, items, reading_rules)
    before = ingest_fingerprint(earlier.plan, tile) if earlier is not None else ""
    for group in cube.groups(plan):
        scenes = cube.group_scenes(plan, group)
        if not scenes:
            continue
        known = {} if earlier is None else earlier.of(tile, before, group)
        counts: list[list[int]] = []
        for block in cube.blocks(len(scenes), plan.options.time_shard):
            start = time.perf_counter()
            places = {k - block.start: known[k] for k in range(block.start, block.stop) if k in known}
            if earlier is not None and places:
                data = _completed(plan, group, scenes[block], tile, items, repeats, earlier, places)
            else:
                data = _read(plan, group, scenes[block], tile, items, repeats)
            spent["read"] += time.perf_counter() - start
            start = time.perf_counter()
            for name, values in data.items():
                target = cube.array(store, INPUTS, f"{group.name}/{name}", "r+")
                cube.write_block(target, block, tile, group.resolution, values)
            spent["write"] += time.perf_counter() - start
            if group.masked:
                counts += [[int((day == v).sum()) for v in (CLEAR, MASKED, NOTHING)] for day in data["clear"]]
            else:
                there = [int((day != FILL).sum()) for day in data[group.bands[0]]]
                counts += [[n, 0, day.size - n] for n, day in zip(there, data[group.bands[0]], strict=True)]
            del data
        names = (*group.bands, "clear") if group.masked else group.bands
        for name in names:
            objects += cube.shard_objects(plan, INPUTS, f"{group.name}/{name}", len(scenes), tile, group.resolution)
        stats[group.name] = counts
    if repeats.counts:
        stats[REPEATED] = repeats.counts
    start = time.perf_counter()
    checksums = ledger.checksum(store, objects)
    spent["check"] = time.perf_counter() - start
    seconds = time.perf_counter() - began
    record = ledger.Record(
        "ingest", tile.name, ingest_fingerprint(plan, tile), checksums, stats, round(seconds, 3), _rounded(spent)
    )
    ledger.write(store, record)
    return TileResult("ingest", tile.name, seconds, _rounded(spent), repeats.counts)


def _completed(
    plan: Plan,
    group: Group,
    scenes: Sequence[Scene],
    tile: Tile,
    items: Mapping[str, pystac.Item],
    repeats: Repeats,
    earlier: Earlier,
    places: Mapping[int, int],
) -> dict[str, NDArray[Any]]:
    """What `_read` gives, with the dates at `places` taken over from the inputs of an earlier plan."""
    fresh = [k for k in range(len(scenes)) if k not in places]
    read = _read(plan, group, [scenes[k] for k in fresh], tile, items, repeats) if fresh else {}
    out: dict[str, NDArray[Any]] = {}
    for name in (*group.bands, "clear") if group.masked else group.bands:
        kept = earlier.read(group, name, list(places.values()), tile)
        out[name] = np.empty((len(scenes), *kept.shape[1:]), kept.dtype)
        out[name][list(places)] = kept
        if fresh:
            out[name][fresh] = read[name]
    return out


def _read(
    plan: Plan,
    group: Group,
    scenes: Sequence[Scene],
    tile: Tile,
    items: Mapping[str, pystac.Item],
    repeats: Repeats,
) -> dict[str, NDArray[Any]]:
    """Arrays (scenes, ny, nx) by variable name of a group of the input cube."""
    source, role = resolve(plan.catalog), cast(Role, group.name)
    product = source.product(role)
    shape = (len(scenes), *tile.shape(group.resolution))
    if product is None:
        raise AssetError(f"catalogue {plan.catalog} has no product for {group.name}; make the plan anew")
    pan = group is cube.LANDSAT8_PAN
    wanted = [
        [_Found(item := _item(items, i, s), product_of(source, item, role)) for i in (s.pan_items if pan else s.items)]
        for s in scenes
    ]
    present = [i for i, scene in enumerate(wanted) if scene]
    common: dict[str, Any] = {
        "where": f"tile {tile.name}",
        "stac_cfg": stac_cfg(product),
        "threads": _threads(),
        "repeats": repeats,
    }
    kinds: dict[str, Kind] = {band: _kind(group) for band in group.bands}
    box = tile.geobox(group.resolution)
    out: dict[str, NDArray[Any]] = {band: np.full(shape, FILL, np.int16) for band in group.bands}
    some = [wanted[i] for i in present]
    if some:
        found = _load(plan, some, kinds, box, "#pan" if pan else "", masks=False, **common)
        for band in group.bands:
            out[band][present] = found.pop(band)
    if group.masked:
        out["clear"] = np.zeros(shape, np.uint8)
        out["clear"][present] = _clear(plan, group, product, some, tile, common)
        # a pixel is known only where all bands are: at the edge of a scene they end at different places
        for band in group.bands:
            out["clear"][out[band] == FILL] = NOTHING
    return out


def _clear(
    plan: Plan,
    group: Group,
    product: Product,
    scenes: Sequence[Sequence[_Found]],
    tile: Tile,
    common: Mapping[str, Any],
) -> NDArray[np.uint8]:
    """Clear mask (scenes, ny, nx): nothing, clear, masked.

    QA_PIXEL is read at 15 m, where its 30 m pixels (corners 15 mod 30) fall exactly: on the 30 m lattice nearest
    neighbour would move every cloud by half a pixel. A lattice pixel is clear where all that it touches is.
    """
    options = MaskOptions.of(plan.options)
    resolution = FINE if group is cube.SENTINEL2 else PAN_RES
    margin = -(-plan.options.mask_dilation // resolution) + 1
    margin += margin % 2  # keeps pairs of 15 m pixels together
    box = tile.geobox(resolution).pad(margin)
    names = [MASK]
    if product.saturation and all(f.product.saturation in f.item.assets for scene in scenes for f in scene):
        names.append(SATURATION)  # a catalogue may leave it out; saturation is rare over land
    layers = _load(plan, scenes, dict.fromkeys(names, "nearest"), box, None, masks=True, **common)
    out = np.zeros((len(scenes), *tile.shape(group.resolution)), np.uint8)
    inner = (slice(margin, -margin), slice(margin, -margin))
    for index, flags in enumerate(layers[MASK]):
        saturation = layers[SATURATION][index] if SATURATION in layers else None
        clear = _classified(product, flags, saturation, resolution, options)[inner]
        out[index] = clear if group is cube.SENTINEL2 else halved(clear)
    learned = cloudmask.find(plan.options.cloud_mask)
    if learned is not None:
        out[_learned(plan, group, scenes, tile, common, learned) & (out != NOTHING)] = MASKED
    return out


def _classified(
    product: Product,
    flags: NDArray[Any],
    saturation: NDArray[Any] | None,
    resolution: float,
    options: MaskOptions,
) -> NDArray[np.uint8]:
    """Clear mask by the kind of mask that the product has."""
    if product.family == "dea-ard":
        return fmask_clear(flags, resolution=resolution, options=options)
    if product.family == "sentinel-2-l2a":
        return sentinel2_clear(flags, resolution=resolution, options=options)
    return landsat_clear(flags, saturation, resolution=resolution, options=options)


def _learned(
    plan: Plan,
    group: Group,
    scenes: Sequence[Sequence[_Found]],
    tile: Tile,
    common: Mapping[str, Any],
    learned: cloudmask.Learned,
) -> NDArray[np.bool_]:
    """Cloud and shadow (scenes, ny, nx) as the mask sees them, grown; read with the ground around the tile."""
    margin = cloudmask.CONTEXT + cloudmask.CONTEXT % 2
    box = tile.geobox(group.resolution).pad(margin)
    layers = _load(plan, scenes, dict.fromkeys(learned.bands, _kind(group)), box, "", masks=False, **common)
    out = []
    for index in range(len(scenes)):
        stored = np.stack([layers[band][index] for band in learned.bands])
        values = np.where(stored == FILL, np.nan, stored * cube.SCALE).astype(np.float32)
        seen = grown(learned.mask(values, float(group.resolution)), plan.options.mask_dilation, group.resolution)
        out.append(seen[margin:-margin, margin:-margin])
    return np.stack(out)


def halved(clear: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Clear mask (2h, 2w) on pixels twice as large: nothing or masked where any of the four is, in that order."""
    h, w = clear.shape
    quads = clear.reshape(h // 2, 2, w // 2, 2)
    out = np.full((h // 2, w // 2), CLEAR, np.uint8)
    out[(quads == MASKED).any((1, 3))] = MASKED
    out[(quads == NOTHING).any((1, 3))] = NOTHING
    return out


@cache
def _threads() -> int:
    """Threads that read assets, shared by all tiles of a process."""
    return settings.load().io_threads


def _kind(group: Group) -> Kind:
    # cubic convolution is the rule for Landsat (HLS); Sentinel-2's 10 m bands lie on the lattice and are copied
    return "bilinear" if group is cube.SENTINEL2 else "cubic"


@dataclass(frozen=True, slots=True)
class _Found:
    """An item of the plan and what it is."""

    item: pystac.Item
    product: Product


def _load(
    plan: Plan,
    scenes: Sequence[Sequence[_Found]],
    kinds: Mapping[str, Kind],
    box: GeoBox,
    suffix: str | None,
    **common: Any,
) -> dict[str, NDArray[Any]]:
    """Arrays (scenes, ny, nx) by layer; each item is read as its own catalogue wants it. `suffix` None: masks."""
    products = {found.item.id: found.product for scene in scenes for found in scene}
    try:
        alike = [[uniform(found.item, found.product, list(kinds)) for found in scene] for scene in scenes]
    except CatalogError as error:
        raise AssetError(str(error)) from error
    return load(alike, kinds, box, lambda item, layer: _asset(plan, products[item.id], item, layer, suffix), **common)


def _item(items: Mapping[str, pystac.Item], name: str, scene: Scene) -> pystac.Item:
    try:
        return items[name]
    except KeyError as error:
        raise AssetError(
            f"item {name} of {scene.label} is in the plan and not in items.json; the store was altered, plan anew"
        ) from error


def _asset(plan: Plan, product: Product, item: pystac.Item, layer: str, suffix: str | None) -> Asset:
    """The asset of a layer of an item (in uniform form) with its radiometry; `suffix` None: a mask."""
    key = keys(product)[layer]
    href = item.assets[layer].href
    if suffix is None:
        return Asset(item.id, key, href, product.numbers(key)[1], None, product.access)
    radiometry = plan.radiometry[item.id + suffix]
    nadir = plan.nbar.get(item.id) if not suffix else None
    if nadir is not None:
        factor = nadir.factors[BANDS.index(layer)]
        factored = {"scale": radiometry.scale * factor, "offset": radiometry.offset * factor}
        radiometry = radiometry.model_copy(update=factored)
    return Asset(item.id, key, href, radiometry.nodata, radiometry, product.access)


def _rounded(spent: Mapping[str, float]) -> dict[str, float]:
    return {k: round(v, 3) for k, v in spent.items()}
