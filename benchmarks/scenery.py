"""A year over any number of tiles whose scenes are a few small files: what a stage costs, without a catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pystac
import rasterio
from affine import Affine

from marstfn.bands import BANDS
from pipeline import cube
from pipeline.grid import Grid, Tile
from pipeline.harmonise import Harmonisation
from pipeline.ingest import TileResult, ingest_tile
from pipeline.pairing import Pair, clear_fractions, pair
from pipeline.plan import Options, Plan, Radiometry, Scene, SensorName, WeightsRef
from pipeline.store import Store

PLAIN = Harmonisation("plain", False, ())
QA_CLEAR, VEGETATION = 21824, 4
_YEAR = datetime(2023, 1, 1, 3, tzinfo=UTC)
_RULES = {
    "sentinel2": Radiometry(scale=1e-4, offset=-0.1, nodata=0, rule="made up"),
    "landsat8": Radiometry(scale=2.75e-5, offset=-0.2, nodata=0, rule="made up"),
}
_COLLECTIONS = {"sentinel2": "sentinel-2-c1-l2a", "landsat8": "landsat-c2-l2"}


@dataclass(frozen=True, slots=True)
class Scenery:
    """A plan, its items, and the store that a run of it fills."""

    plan: Plan
    items: Mapping[str, pystac.Item]
    store: Store

    def ingest(self, tile: Tile) -> TileResult:
        """Read one tile."""
        return ingest_tile(self.plan, self.store, tile, self.items)

    def fuse(self, tile: Tile) -> TileResult:
        """Fuse one tile; those around it must have been read."""
        from pipeline.fuse import fuse_tile  # torch: a process that reads is smaller without

        return fuse_tile(self.plan, self.store, tile, PLAIN, self.pairs())

    def pairs(self) -> tuple[Pair, ...]:
        """The references of all Landsat dates, as if every Sentinel-2 day were clear in the same part of the area."""
        times = {sensor: [scene.time for scene in self.plan.of(sensor)] for sensor in ("landsat8", "sentinel2")}
        clear = clear_fractions([[[3, 1, 0]] * len(times["sentinel2"])])
        return pair(times["landsat8"], times["sentinel2"], clear, self.plan.options)


def made(
    folder: Path, rows: int, columns: int, tile_px: int, days: tuple[int, int], *,
    method: str = "additive", weights: tuple[WeightsRef, ...] = (), time_shard: int = 48, batch: int = 8,
) -> Scenery:  # fmt: skip
    """`rows` x `columns` tiles of `tile_px` with `days` (Sentinel-2, Landsat) evenly over a year, templates written.

    All days of a sensor are the same files, so that neither disk nor page cache grows with the year.
    """
    cells = tile_px // 6
    grid = Grid(32650, 600_000, 5_400_000, columns * cells, rows * cells, tile_px)
    files = _files(folder / "scenes", grid)
    items: dict[str, pystac.Item] = {}
    scenes: list[Scene] = []
    sensors: tuple[SensorName, SensorName] = ("sentinel2", "landsat8")
    for sensor, count in zip(sensors, days, strict=True):
        for k in range(count):
            moment = _YEAR + timedelta(days=k * 360 / count, minutes=10 * (sensor == "landsat8"))
            name = f"{sensor}-{k:03}"
            items[name] = _item(name, _COLLECTIONS[sensor], grid, moment, files[sensor])
            platform = "sentinel-2a" if sensor == "sentinel2" else "landsat-8"
            scenes.append(Scene(sensor=sensor, platform=platform, time=moment, day=moment.date(), items=(name,)))
    plan = Plan(
        name="made up", aoi=grid.geobox(60).geographic_extent.json, aoi_source="made up", year=2023, grid=grid,
        catalog="simulated@http://127.0.0.1:9", scenes=tuple(sorted(scenes, key=lambda s: s.time)),
        radiometry={name: _RULES[name.partition("-")[0]] for name in items}, weights=weights,
        options=Options(method=method, stride=48, batch=batch, threads=1, time_shard=time_shard),
        items_sha256="0" * 64, simulated=True,
    )  # fmt: skip
    store = Store(str(folder / "store"))
    cube.create_inputs(plan, store)
    cube.create_fused(plan, store)
    return Scenery(plan, items, store)


def _files(folder: Path, grid: Grid) -> dict[str, dict[str, Path]]:
    """By sensor and asset, GeoTIFFs on the lattices that their products lie on, a little beyond the grid."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    ny, nx = grid.shape(60)
    out: dict[str, dict[str, Path]] = {"sentinel2": {}, "landsat8": {}}
    fine = {band: 10 if band in ("blue", "green", "red") else 20 for band in BANDS} | {"scl": 20}
    for sensor, sizes in (("sentinel2", fine), ("landsat8", dict.fromkeys((*BANDS, "qa_pixel", "qa_radsat"), 30))):
        for key, size in sizes.items():
            off = 15 if size == 30 else 0
            shape = (ny + 10) * 60 // size, (nx + 10) * 60 // size
            lowest, highest = (1200, 5000) if sensor == "sentinel2" else (8000, 20000)
            data = rng.integers(lowest, highest, shape).astype(np.uint16)
            flags = {"scl": VEGETATION, "qa_pixel": QA_CLEAR, "qa_radsat": 0}
            if key in flags:
                data = np.full(shape, flags[key], np.uint8 if key == "scl" else np.uint16)
            path = folder / f"{sensor}-{key}.tif"
            where = Affine(size, 0, grid.left - 300 - off, 0, -size, grid.top + 300 + off)
            with rasterio.open(
                path, "w", driver="GTiff", height=shape[0], width=shape[1], count=1, dtype=data.dtype,
                crs=f"EPSG:{grid.epsg}", transform=where, tiled=True, blockxsize=256, blockysize=256,
            ) as file:  # fmt: skip
                file.write(data, 1)
            out[sensor][key] = path
    return out


def _item(name: str, collection: str, grid: Grid, moment: datetime, files: Mapping[str, Path]) -> pystac.Item:
    extent = grid.geobox(60).geographic_extent
    item = pystac.Item(name, extent.json, list(extent.boundingbox.bbox), moment, {}, collection=collection)
    for key, path in files.items():
        item.add_asset(key, pystac.Asset(str(path), media_type="image/tiff; application=geotiff"))
    return item
