"""A finished store small enough to write in a moment: 2 x 2 tiles, a year of 6 Landsat and 12 Sentinel-2 days."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pystac
import xarray as xr

from marstfn.bands import BANDS
from pipeline import cube, harmonise, items, ledger
from pipeline.fuse import fuse_fingerprint
from pipeline.grid import Grid
from pipeline.ingest import ingest_fingerprint
from pipeline.job import pairs
from pipeline.pairing import Pair
from pipeline.plan import Options, Plan, Radiometry, Scene, WeightsRef
from pipeline.store import FUSED, INPUTS, ITEMS, PLAN, Store

GRID = Grid(epsg=32651, left=300000, top=5460000, columns=20, rows=18, tile_px=60)
YEAR = 2023
LON_LAT = [[120.2519, 49.2504], [120.2673, 49.2508], [120.2668, 49.2600], [120.2513, 49.2596], [120.2519, 49.2504]]


def plan(**changes: object) -> Plan:
    """A plan over 120 x 108 px with one day that both sensors saw."""
    scenes = [
        *(_scene("landsat8", "landsat-8", date(YEAR, 1, 20) + timedelta(days=64 * k), 2, 40) for k in range(6)),
        *(_scene("sentinel2", "sentinel-2a", date(YEAR, 1, 10) + timedelta(days=30 * k), 2, 55) for k in range(11)),
        _scene("sentinel2", "sentinel-2b", date(YEAR, 5, 28), 2, 55),
    ]
    names = [name for scene in scenes for name in scene.items]
    values: dict[str, object] = {
        "name": "small",
        "aoi": {"type": "Polygon", "coordinates": [LON_LAT]},
        "aoi_source": "small.geojson",
        "year": YEAR,
        "grid": GRID,
        "catalog": "simulated@http://127.0.0.1:1",
        "scenes": tuple(sorted(scenes, key=lambda s: s.time)),
        "radiometry": {name: Radiometry(scale=1e-4, offset=-0.1, nodata=0, rule="test") for name in names},
        "weights": (WeightsRef(source="marstfn-nopan", sha256="0" * 64, pan=False, patch=60),),
        "options": Options(time_shard=8),
        "items_sha256": items.sha256(collection(sorted(scenes, key=lambda s: s.time))),
        "simulated": True,
        "versions": {"numpy": np.__version__},
    }
    return Plan(**(values | changes))  # type: ignore[arg-type]


def collection(scenes: Iterable[Scene]) -> pystac.ItemCollection:
    """An item, without assets, for each acquisition."""
    ring = {"type": "Polygon", "coordinates": [LON_LAT]}
    box = [120.2513, 49.2504, 120.2673, 49.26]
    return pystac.ItemCollection(
        [
            pystac.Item(name, ring, box, scene.time, {"platform": scene.platform})
            for scene in scenes
            for name in scene.items
        ]
    )


def _scene(sensor: str, platform: str, day: date, hour: int, minute: int) -> Scene:
    time = datetime(day.year, day.month, day.day, hour, minute, tzinfo=UTC)
    return Scene(sensor=sensor, platform=platform, time=time, day=day, items=(f"{platform}-{day:%Y%m%d}",))  # type: ignore[arg-type]


def fields(a_plan: Plan) -> xr.Dataset:
    """What the whole fused cube holds, as stored integers: parcels that green up and ripen, with holes."""
    rng = np.random.default_rng(7)
    ny, nx = a_plan.grid.shape(10)
    scenes = a_plan.scenes
    parcel = np.kron(rng.random((-(-ny // 12), -(-nx // 15))), np.ones((12, 15)))[:ny, :nx]
    season = [np.exp(-(((s.day.timetuple().tm_yday - 200) / 60) ** 2)) for s in scenes]
    green = np.asarray(season)[:, None, None] * parcel
    base = np.asarray([0.05, 0.07, 0.08, 0.2, 0.22, 0.15])
    gain = np.asarray([-0.02, -0.01, -0.05, 0.3, -0.05, -0.08])
    noise = rng.normal(0, 0.003, (6, *green.shape))
    values = base[:, None, None, None] + gain[:, None, None, None] * green + noise
    stored = np.rint(values * 1e4).astype("int16")
    fused = np.asarray([s.sensor == "landsat8" for s in scenes])[:, None, None] & np.ones(green.shape, bool)
    quality = np.where(fused, 2, 1).astype("uint8")
    quality[1, 10:30, 5:50] = 4  # a cloud
    quality[2, :, 100:] = 0  # the swath's edge
    quality[3:6, 40:60, 30:90] = np.where(fused[3:6, 40:60, 30:90], 3, 4)
    known = np.isin(quality, (1, 2, 3))
    stored[:, ~known] = -9999
    age = np.where(quality == 2, 10, -9999).astype("int16")
    coherence = np.where(np.isin(quality, (2, 3)), 35, -9999).astype("int16")
    dims = ("time", "y", "x")
    variables = {band: (dims, stored[k]) for k, band in enumerate(BANDS)}
    return xr.Dataset(
        {
            **variables,
            "quality": (dims, quality),
            "reference_age": (dims, age),
            "coherence": (dims, coherence),
            "uncertainty": (dims, np.full_like(age, -9999)),
        }
    )


def write(folder: Path, a_plan: Plan | None = None, *, status: str = "complete") -> tuple[Store, Plan]:
    """The store of a finished run in `folder`, through the cube's and the ledger's own writers."""
    made, store = a_plan or plan(), Store(str(folder))
    store.write(PLAN, made.model_dump_json(indent=1).encode())
    store.write(ITEMS, json.dumps(collection(made.scenes).to_dict()).encode())
    cube.create_inputs(made, store)
    cube.create_fused(made, store)
    _write_inputs(store, made)
    data = fields(made)
    basis = _basis(store, made)
    for tile in made.grid.tiles():
        checksums: dict[str, str] = {}
        for name in data:
            target = cube.array(store, FUSED, str(name), "r+")
            for block in cube.fused_blocks(made):
                cube.write_block(target, block, tile, 10, data[name].values[block, *tile.roi(10)])
            objects = cube.shard_objects(FUSED, str(name), cube.fused_blocks(made), tile, 10)
            checksums |= ledger.checksum(store, objects)
        ledger.write(
            store, ledger.Record("fuse", tile.name, fuse_fingerprint(made, tile, *basis), checksums, seconds=2.0)
        )
    cube.set_status(store, status)
    return store, made


def _basis(store: Store, a_plan: Plan) -> tuple[harmonise.Harmonisation, tuple[Pair, ...]]:
    """Fits that were all refused, and the pairs that follow from the ledger."""
    identity = harmonise.harmonise_fingerprint(a_plan, [ingest_fingerprint(a_plan, t) for t in a_plan.grid.tiles()])
    fits = harmonise.fit_scenes(a_plan, [], identity)
    harmonise.write(store, fits)
    return fits, pairs(a_plan, store)


def _write_inputs(store: Store, a_plan: Plan) -> None:
    """Landsat as 30 m means of the fused dates, Sentinel-2 as observed; what is masked there is masked here."""
    data = fields(a_plan)
    checksums: dict[str, dict[str, str]] = {tile.name: {} for tile in a_plan.grid.tiles()}
    stats: dict[str, dict[str, list[list[int]]]] = {tile.name: {} for tile in a_plan.grid.tiles()}
    for group in cube.groups(a_plan):
        blocks = cube.input_blocks(a_plan, group)
        where = [k for k, scene in enumerate(a_plan.scenes) if scene.sensor == group.name]
        step = group.resolution // 10
        for name in (*group.bands, "clear"):
            if name == "clear":
                quality = data["quality"].values[where, ::step, ::step]
                values = np.select([quality == 0, quality == 4], [0, 2], 1).astype("uint8")
            else:
                fine = data[name].values[where].astype("int16")
                values = fine[:, ::step, ::step]
            target = cube.array(store, INPUTS, f"{group.name}/{name}", "r+")
            for tile in a_plan.grid.tiles():
                for block in blocks:
                    cube.write_block(target, block, tile, group.resolution, values[block, *tile.roi(group.resolution)])
                objects = cube.shard_objects(INPUTS, f"{group.name}/{name}", blocks, tile, group.resolution)
                checksums[tile.name] |= ledger.checksum(store, objects)
                if name == "clear":
                    days = values[(slice(None), *tile.roi(group.resolution))]
                    stats[tile.name][group.name] = [[int((day == v).sum()) for v in (1, 2, 0)] for day in days]
    for tile in a_plan.grid.tiles():
        made_from = ingest_fingerprint(a_plan, tile)
        ledger.write(
            store, ledger.Record("ingest", tile.name, made_from, checksums[tile.name], stats[tile.name], seconds=1.0)
        )
