"""Files on a server, and ways to read an area of them: tile by tile and in units, and GDAL's own warp."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from benchmarks import ranges
from pipeline import cube, units
from pipeline.access import PLAIN
from pipeline.around import Around
from pipeline.cluster import SLOTS
from pipeline.cube import Group
from pipeline.grid import Grid, Tile, Window
from pipeline.plan import Options, Plan, Radiometry, Scene, SensorName
from pipeline.retries import Repeats
from pipeline.settings import Settings

THREADS = Settings().io_threads
RULE = Radiometry(scale=1e-4, offset=0.0, nodata=0, rule="benchmark")
"""So that what is stored is the number in the file."""


@dataclass(frozen=True, slots=True)
class Band:
    """A band of the files: its pixel size and blocks, and the group it belongs to."""

    group: Group
    name: str
    key: str
    """Asset key in the catalogue of the benchmark."""
    metres: int
    block: int

    @property
    def how(self) -> str:
        """As the stage resamples it."""
        return "bilinear" if self.group is cube.SENTINEL2 else "cubic"


BANDS = (
    Band(cube.LANDSAT8, "red", "red", 30, 256),
    Band(cube.LANDSAT8, "nir08", "nir08", 30, 256),
    Band(cube.SENTINEL2, "red", "red", 10, 512),
    Band(cube.SENTINEL2, "swir16", "swir16", 20, 256),
)
SENSORS: dict[Group, SensorName] = {cube.LANDSAT8: "landsat8", cube.SENTINEL2: "sentinel2"}


@dataclass(frozen=True)
class Bench:
    """Files, the server they lie on, and the tiles that are read from them."""

    folder: Path
    server: ranges.Server
    grid: Grid
    written: int
    """Dates that there are files of."""
    dates: int
    """Dates that are read; those beyond have the files of the first again, under other addresses."""
    turns: Iterator[int] = field(default_factory=itertools.count)

    @property
    def tiles(self) -> list[Tile]:
        """All tiles of the area."""
        return list(self.grid.tiles())

    def files(self) -> list[tuple[Band, int]]:
        """Band and date of every file."""
        return [(band, day) for band in BANDS for day in range(self.dates)]

    def url(self, band: Band, day: int, turn: str) -> str:
        """The address of a file in one round."""
        return self.server.url(name_of(band, day % self.written), f"{turn}-{day}")

    def turn(self) -> str:
        """A name for a round, never given before in this process."""
        return f"t{os.getpid()}-{next(self.turns)}"


def name_of(band: Band, day: int) -> str:
    """The file of a band and date."""
    return f"{band.group.name}_{band.name}_{day}.tif"


def write_files(folder: Path, grid: Grid, dates: int) -> None:
    """A file a band and date, larger than the grid on all sides; its numbers compress by a third."""
    rng = np.random.default_rng(1)
    for band in BANDS:
        shape, transform = extent(band, grid)
        where = {"crs": f"EPSG:{grid.epsg}", "transform": transform}
        for day in range(dates):
            data = (5000 + 900 * rng.standard_normal(shape, np.float32)).clip(1, 9000).astype(np.uint16)
            profile = {
                "driver": "COG",
                "height": shape[0],
                "width": shape[1],
                "count": 1,
                "dtype": "uint16",
                "nodata": 0,
            }
            layout = {"blocksize": band.block, "compress": "deflate", "level": 1, "overviews": "none"}
            with rasterio.open(folder / name_of(band, day), "w", **profile, **where, **layout) as file:
                file.write(data, 1)


def extent(band: Band, grid: Grid) -> tuple[tuple[int, int], Affine]:
    """Shape and transform of the files of a band: on the corners of its sensor, some blocks beyond the grid."""
    shift = 15 if band.group is cube.LANDSAT8 else 0
    margin = 60 * (max(240, grid.tile_px) // 12 + 7)
    height, width = (60 * n + 2 * margin for n in (grid.rows, grid.columns))
    left, top = grid.left - margin - shift, grid.top + margin + shift
    shape = height // band.metres + 1, width // band.metres + 1
    return shape, Affine(band.metres, 0, left, 0, -band.metres, top)


def block_bytes(bench: Bench, windows: Sequence[Window]) -> int:
    """Bytes in the files of the blocks under each of the windows, counted anew for every window."""
    total = 0
    for band, day in bench.files():
        with rasterio.open(bench.folder / name_of(band, day % bench.written)) as file:
            halo = 0 if band.metres == band.group.resolution and not file.transform.c % band.metres else 2
            for window in windows:
                box = window.geobox(band.group.resolution).boundingbox
                found = file.window(*box.bbox)
                r0, c0 = (int(v) - halo for v in (np.floor(found.row_off), np.floor(found.col_off)))
                r1 = int(np.ceil(found.row_off + found.height)) + halo
                c1 = int(np.ceil(found.col_off + found.width)) + halo
                for y in range(max(0, r0) // band.block, -(-min(r1, file.height) // band.block)):
                    for x in range(max(0, c0) // band.block, -(-min(c1, file.width) // band.block)):
                        size = file.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=1)
                        total += int(size or 0)
    return total


Pixels = dict[Band, NDArray[np.int16]]
"""What a candidate gives: (dates, ny, nx) over the area, by band."""


def empty(bench: Bench) -> Pixels:
    """Arrays over the area that a candidate fills."""
    return {band: np.zeros((bench.dates, *bench.grid.shape(band.group.resolution)), np.int16) for band in BANDS}


def warp(bench: Bench, windows: Sequence[Window], turn: str) -> Pixels:
    """GDAL's warp with its own settings, a task a window and file, in threads."""
    out = empty(bench)

    def task(band: Band, day: int, window: Window) -> None:
        box, roi = window.geobox(band.group.resolution), window.roi(band.group.resolution)
        with PLAIN.opened(), rasterio.open(bench.url(band, day, turn), sharing=False) as source, WarpedVRT(
            source, crs=str(box.crs), transform=box.transform, width=box.shape.x, height=box.shape.y,
            resampling=Resampling[band.how],
        ) as view:  # fmt: skip
            out[band][(day, *roi)] = view.read(1)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda job: task(*job), [(b, d, w) for w in windows for b, d in bench.files()]))
    return out


def ours(bench: Bench, parts: Sequence[Sequence[Tile]], turn: str, at_once: int) -> Pixels:
    """As the stage reads them, tiles or units of them, `at_once` loads under way."""
    out = empty(bench)
    plan, items = planned(bench, turn)

    def task(tiles: Sequence[Tile], group: Group) -> None:
        around = Around(plan, items, tuple(tiles), "benchmark", THREADS, Repeats())
        names = [band.name for band in BANDS if band.group is group]
        read = around.bands(group, plan.of(SENSORS[group]), names)
        for band in BANDS:
            if band.group is group:
                out[band][(slice(None), *around.window.roi(group.resolution))] = read[band.name]

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(lambda job: task(*job), [(tiles, group) for tiles in parts for group in SENSORS]))
    return out


def in_a_row(bench: Bench, parts: Sequence[Sequence[Tile]], turn: str) -> None:
    """Units as a run reads them, as many at a time as an I/O worker does, a load a sensor under way in each; the stage
    has up to three. What is read is dropped, for writing would hide the latency."""
    plan, items = planned(bench, turn)

    def task(tiles: Sequence[Tile]) -> None:
        around = Around(plan, items, tuple(tiles), "benchmark", THREADS, Repeats())

        def load(group: Group) -> None:
            around.bands(group, plan.of(SENSORS[group]), [band.name for band in BANDS if band.group is group])

        with ThreadPoolExecutor(len(SENSORS)) as loads:
            list(loads.map(load, SENSORS))

    with ThreadPoolExecutor(SLOTS) as pool:
        list(pool.map(task, parts))


def planned(bench: Bench, turn: str) -> tuple[Plan, dict[str, pystac.Item]]:
    """A plan of the files as a run has it, and its items."""
    items, scenes = {}, []
    code = {"proj:code": f"EPSG:{bench.grid.epsg}"}
    outline = bench.grid.geobox(10).geographic_extent
    for group, sensor in SENSORS.items():
        for day in range(bench.dates):
            time = datetime(2023, 5, 1, 3, tzinfo=UTC) + timedelta(days=day, hours=sensor == "sentinel2")
            name = f"{sensor}-{day}"
            collection = "landsat-c2-l2" if sensor == "landsat8" else "sentinel-2-c1-l2a"
            item = pystac.Item(name, outline.json, list(outline.boundingbox.bbox), time, code, collection=collection)
            for band in BANDS:
                if band.group is group:
                    shape, transform = extent(band, bench.grid)
                    place = {"proj:shape": list(shape), "proj:transform": list(transform)[:6]}
                    item.add_asset(band.key, pystac.Asset(bench.url(band, day, turn), extra_fields=place))
            items[name] = item
            platform = "landsat-8" if sensor == "landsat8" else "sentinel-2a"
            day_of = date(2023, 5, 1) + timedelta(days=day)
            scenes.append(Scene(sensor=sensor, platform=platform, time=time, day=day_of, items=(name,)))
    plan = Plan(
        name="benchmark", aoi=outline.json, aoi_source="benchmark", year=2023, grid=bench.grid,
        catalog="simulated@http://127.0.0.1:9", scenes=tuple(sorted(scenes, key=lambda s: s.time)),
        radiometry=dict.fromkeys(items, RULE), weights=(), options=Options(), items_sha256="0" * 64,
    )  # fmt: skip
    return plan, items


def cells_of(bench: Bench, side: int) -> list[tuple[Tile, ...]]:
    """The tiles of each unit of `side` x `side`."""
    plan, _ = planned(bench, "x")
    return [units.wanted(plan, cell) for cell in units.divided(bench.grid, bench.tiles, side)[0]]


def candidates(bench: Bench, side: int) -> dict[str, Callable[[], Pixels]]:
    """What is compared over the area, by name."""
    tiles, cells = bench.tiles, cells_of(bench, side)
    return {
        "warp tile by tile": lambda: warp(bench, tiles, bench.turn()),
        "warp, each block once": lambda: warp(bench, [bench.grid.window], bench.turn()),
        "ours tile by tile": lambda: ours(bench, [[tile] for tile in tiles], bench.turn(), 4),
        "ours by units": lambda: ours(bench, cells, bench.turn(), 2),
    }


def agree(one: Pixels, other: Pixels) -> Any:
    """The largest difference between two candidates, in counts."""
    return max(int(np.abs(one[band].astype(int) - other[band]).max()) for band in BANDS)
