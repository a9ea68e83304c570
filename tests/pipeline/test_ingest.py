"""Assets come onto one lattice exactly: against an independent warp, by point targets, tile by tile as in one piece."""

from __future__ import annotations

import dataclasses
import json
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pystac
import pytest
import rasterio
import rasterio.errors
import rasterio.warp
from affine import Affine
from rasterio.enums import Resampling

from marstfn.bands import BANDS, PAN
from pipeline import cloudmask, cube, growth, items, job, ledger, reader, units, yields
from pipeline.around import halved
from pipeline.errors import AssetError, CubeError, MarstfnError, PlanError
from pipeline.events import Note, TileDone, TileFailed
from pipeline.grid import Grid
from pipeline.ingest import UNIT, ingest_fingerprint, ingest_tile, ingest_tiles
from pipeline.plan import Adjustment, Nadir, Options, Plan, Radiometry, Scene
from pipeline.store import INPUTS, ITEMS, PLAN, Store
from pipeline.tasks import Failure

LANDSAT = Radiometry(scale=2.75e-5, offset=-0.2, nodata=0, rule="test")
SENTINEL = Radiometry(scale=1e-4, offset=-0.1, nodata=0, rule="test")
PAN_RULE = Radiometry(scale=4e-5, offset=-0.2, nodata=0, rule="test")
NORTH = Grid(32650, 600_000, 5_400_000, 40, 30, 120)
SOUTH = Grid(32756, 300_000, 6_250_020, 30, 30, 120)
QA_CLEAR, QA_CLOUD, QA_FILL = 21824, 22280, 1


class Scenery:
    """A few scenes as GeoTIFFs and items in a folder, and the plan that names them."""

    def __init__(self, folder: Path, grid: Grid, **options: int) -> None:
        self.folder, self.grid = folder, grid
        self.options = Options(**{"time_shard": 3, "mask_dilation": 0} | options)
        self.items: dict[str, pystac.Item] = {}
        self.scenes: list[Scene] = []
        self.radiometry: dict[str, Radiometry] = {}
        self.files: dict[tuple[str, str], Path] = {}

    def asset(self, item: str, key: str, data: np.ndarray, epsg: int, left: float, top: float, res: float) -> None:
        path = self.folder / f"{item}_{key}.tif"
        profile = {"driver": "GTiff", "height": data.shape[0], "width": data.shape[1], "count": 1, "dtype": data.dtype}
        where = {"crs": f"EPSG:{epsg}", "transform": Affine(res, 0, left, 0, -res, top)}
        with rasterio.open(path, "w", **profile, **where, tiled=True, blockxsize=128, blockysize=128) as file:
            file.write(data, 1)
        self.files[item, key] = path
        self.items[item].add_asset(key, pystac.Asset(str(path), media_type="image/tiff; application=geotiff"))

    def item(self, name: str, collection: str) -> None:
        box = self.grid.geobox(10).geographic_extent
        bounds = list(box.boundingbox.bbox)
        self.items[name] = pystac.Item(
            name, box.json, bounds, datetime(2023, 1, 1, tzinfo=UTC), {}, collection=collection
        )

    def scene(self, sensor: str, day: int, items: tuple[str, ...], pan: tuple[str, ...] = ()) -> None:
        time = datetime(2023, 5, 1, 2, 50, tzinfo=UTC) + timedelta(days=day, minutes=10 * (sensor == "sentinel2"))
        platform = "landsat-8" if sensor == "landsat8" else "sentinel-2a"
        self.scenes.append(
            Scene(
                sensor=sensor, platform=platform, time=time,
                day=date(2023, 5, 1) + timedelta(days=day), items=items, pan_items=pan,
            )
        )  # fmt: skip

    def plan(self) -> Plan:
        return Plan(
            name="test", aoi={}, aoi_source="test", year=2023, grid=self.grid, catalog="simulated@http://127.0.0.1:9",
            scenes=tuple(sorted(self.scenes, key=lambda s: s.time)), radiometry=self.radiometry, weights=(),
            options=self.options, items_sha256="0" * 64,
        )  # fmt: skip


def landsat(s: Scenery, name: str, epsg: int, north: float, rng: np.random.Generator, day: int, pan: bool) -> None:
    """One Landsat scene, corners 15 mod 30 (pan 7.5 mod 15), on numbers that reach beyond the grid."""
    s.item(name, "landsat-c2-l2")
    ny, nx = s.grid.shape(30)
    left, top = s.grid.left - 30 * 20 - 15, north + 30 * 20 + 15
    shape = (ny + 41, nx + 41)
    for band in BANDS:
        data = rng.integers(8000, 20000, shape).astype(np.uint16)
        data[:, :25] = 0  # nothing in the west
        s.asset(name, band, data, epsg, left, top, 30)
    qa = np.full(shape, QA_CLEAR, np.uint16)
    qa[:, :25] = QA_FILL
    qa[40:44, 50:53] = QA_CLOUD
    s.asset(name, "qa_pixel", qa, epsg, left, top, 30)
    s.asset(name, "qa_radsat", np.zeros(shape, np.uint16), epsg, left, top, 30)
    s.radiometry[name] = LANDSAT
    names: tuple[str, ...] = ()
    if pan:
        s.item(name + "-L1", "landsat-c2l1")
        data = rng.integers(5000, 9000, (2 * shape[0], 2 * shape[1])).astype(np.uint16)
        s.asset(name + "-L1", PAN, data, epsg, left + 7.5, top - 7.5, 15)
        s.radiometry[name + "-L1#pan"] = PAN_RULE
        names = (name + "-L1",)
    s.scene("landsat8", day, (name,), names)


def sentinel2(
    s: Scenery, name: str, rng: np.random.Generator, *,
    epsg: int | None = None, left: int = 0, top: int = 0, px: int = 0,
) -> None:  # fmt: skip
    """One Sentinel-2 item, corners 0 mod 20."""
    s.item(name, "sentinel-2-c1-l2a")
    px = px or 2 * max(s.grid.shape(20)) + 40
    left, top = left or s.grid.left - 200, top or s.grid.top + 200
    for band in BANDS:
        res = 10 if band in ("blue", "green", "red") else 20
        n = px * 10 // res
        data = rng.integers(1200, 5000, (n, n)).astype(np.uint16)
        data[: n // 8] = 0
        s.asset(name, band, data, epsg or s.grid.epsg, left, top, res)
    scl = np.full((px // 2, px // 2), 4, np.uint8)
    scl[: px // 16] = 0
    scl[30:34, 40:44] = 9
    s.asset(name, "scl", scl, epsg or s.grid.epsg, left, top, 20)
    s.radiometry[name] = SENTINEL


@pytest.fixture(scope="module")
def north(tmp_path_factory: pytest.TempPathFactory) -> Scenery:
    rng = np.random.default_rng(1)
    s = Scenery(tmp_path_factory.mktemp("north"), NORTH)
    for day, pan in ((0, True), (16, False), (32, True), (48, True)):
        landsat(s, f"L{day}", 32650, NORTH.top, rng, day, pan)
    for day in (2, 7):
        sentinel2(s, f"S{day}", rng)
        s.scene("sentinel2", day, (f"S{day}",))
    # two items of one day, the first ends in the middle of the grid
    sentinel2(s, "S12a", rng, left=NORTH.left - 1000, px=240)
    sentinel2(s, "S12b", rng)
    s.scene("sentinel2", 12, ("S12a", "S12b"))
    return s


@pytest.fixture(scope="module")
def south(tmp_path_factory: pytest.TempPathFactory) -> Scenery:
    """Landsat in UTM north with negative northings, the grid in UTM south."""
    rng = np.random.default_rng(2)
    s = Scenery(tmp_path_factory.mktemp("south"), SOUTH)
    landsat(s, "L0", 32656, SOUTH.top - 10_000_000 + 20, rng, 0, True)
    sentinel2(s, "S2", rng, left=SOUTH.left - 200, top=SOUTH.top + 180)
    s.scene("sentinel2", 2, ("S2",))
    return s


@pytest.fixture(scope="module")
def north_run(north, tmp_path_factory) -> tuple[Plan, Store]:
    """The northern scenery, ingested once for the tests that only look."""
    return ingested(north, tmp_path_factory.mktemp("north-run"))


def ingested(s: Scenery, folder: Path, unit: int = 1) -> tuple[Plan, Store]:
    """Read in units of `unit` x `unit` tiles; 1: each tile by itself."""
    plan, store = s.plan(), Store(str(folder))
    cube.create_inputs(plan, store)
    cells, alone = units.divided(plan.grid, plan.grid.tiles(), unit)
    for tile in alone:
        ingest_tile(plan, store, tile, s.items)
    for cell in cells:
        tiles = [t for t in plan.grid.tiles() if (t.row // unit, t.col // unit) == (cell.row, cell.col)]
        ingest_tiles(plan, store, tiles, s.items, cell.name)
    return plan, store


def stored(store: Store, name: str) -> np.ndarray:
    return np.asarray(cube.array(store, INPUTS, name)[:])


def warped(path: Path, grid: Grid, res: int, how: Resampling) -> np.ndarray:
    """The whole grid in one call of GDAL's warper, float32 numbers, NaN where nothing."""
    ny, nx = grid.shape(res)
    out = np.full((ny, nx), np.nan, np.float32)
    with rasterio.open(path) as file:
        rasterio.warp.reproject(
            rasterio.band(file, 1), out, src_nodata=0, dst_nodata=np.nan, dst_crs=f"EPSG:{grid.epsg}",
            dst_transform=Affine(res, 0, grid.left, 0, -res, grid.top), resampling=how,
        )  # fmt: skip
    return out


def reference(numbers: np.ndarray, rule: Radiometry) -> np.ndarray:
    rho = numbers.astype(np.float64) * rule.scale + rule.offset
    return np.where(np.isnan(rho), -9999, np.clip(np.round(rho.astype(np.float32) / 1e-4), -9998, 32767)).astype(int)


def test_ingest_equals_an_independent_warp(north, north_run):
    """Every band of every scene, to 1e-6 in reflectance after the same rounding: not one unit of 1e-4 differs."""
    plan, store = north_run
    worst = 0
    for group, how in ((cube.LANDSAT8, Resampling.cubic), (cube.SENTINEL2, Resampling.bilinear)):
        rule = LANDSAT if group is cube.LANDSAT8 else SENTINEL
        for band in BANDS:
            got = stored(store, f"{group.name}/{band}")
            for index, scene in enumerate(cube.group_scenes(plan, group)):
                want = np.full(got.shape[1:], -9999)
                for item in scene.items:
                    layer = reference(warped(north.files[item, band], plan.grid, group.resolution, how), rule)
                    want = np.where(want == -9999, layer, want)
                assert ((got[index] == -9999) == (want == -9999)).all(), (scene.label, band)
                worst = max(worst, int(np.abs(got[index] - want).max()))
    pan = stored(store, "landsat8_pan/pan")
    for index, scene in enumerate(plan.of("landsat8")):
        if scene.pan_items:
            numbers = warped(north.files[scene.pan_items[0], PAN], plan.grid, 15, Resampling.cubic)
            worst = max(worst, int(np.abs(pan[index] - reference(numbers, PAN_RULE)).max()))
        else:
            assert (pan[index] == -9999).all()
    print(f"largest difference from GDAL's own warp: {worst * 1e-4:.6f} reflectance")
    assert worst * 1e-4 <= 1e-6


def test_tiles_equal_the_whole(north, north_run, tmp_path):
    """The tile side and the time block leave no trace in the pixels."""
    _, tiled = north_run
    whole = Scenery(north.folder, dataclasses.replace(NORTH, tile_px=240), time_shard=48)
    whole.items, whole.scenes, whole.radiometry = north.items, north.scenes, north.radiometry
    _, one = ingested(whole, tmp_path / "one")
    for group in (cube.SENTINEL2, cube.LANDSAT8, cube.LANDSAT8_PAN):
        for name in (*group.bands, *(("clear",) if group.masked else ())):
            a, b = stored(tiled, f"{group.name}/{name}"), stored(one, f"{group.name}/{name}")
            assert (a == b).all(), f"{group.name}/{name}: {(a != b).mean():.2%} differ"


@pytest.mark.parametrize("places", [[(0, 0), (0, 1), (1, 0), (1, 1)], [(0, 1), (1, 0), (1, 1)], [(0, 0), (1, 1)]])
@pytest.mark.parametrize("together", [1, 384_000_000])
def test_units_store_what_tiles_store(places, together, north, north_run, tmp_path, monkeypatch):
    """Byte for byte, whichever tiles are left of a unit, and whether one band is read at a time or all of them."""
    monkeypatch.setattr("pipeline.units.TOGETHER", together)
    plan, tiled = north_run
    store = Store(str(tmp_path))
    cube.create_inputs(plan, store)
    tiles = [plan.grid.tile(*place) for place in places]
    result = ingest_tiles(plan, store, tiles, north.items, "r000c000x2")
    assert result.tile == "r000c000x2"
    for tile in plan.grid.tiles():
        one, other = ledger.read(tiled, "ingest", tile.name), ledger.read(store, "ingest", tile.name)
        if tile not in tiles:
            assert other is None
            continue
        assert other.checksums == one.checksums
        assert other.fingerprint == one.fingerprint
        assert other.stats == one.stats | {UNIT: "r000c000x2"}
        assert ledger.done(store, "ingest", tile.name, one.fingerprint)


def test_masks_say_nothing_clear_masked(north_run):
    plan, store = north_run
    clear = stored(store, "landsat8/clear")[0]
    # QA pixels 40:44 x 50:53 of a scene whose corner lies 20.5 pixels up and left of the grid's touch these
    want = np.full(clear.shape, 1, np.uint8)
    want[40 - 21 : 44 - 20, 50 - 21 : 53 - 20] = 2
    want[:, : 25 - 20] = 0
    assert (clear == want).all()
    fine = stored(store, "sentinel2/clear")[0]
    masked = np.argwhere(fine == 2)
    first, last = masked.min(0), masked.max(0)
    assert first.tolist() == [60 - 20, 80 - 20]
    assert last.tolist() == [67 - 20, 87 - 20]
    blue = stored(store, "sentinel2/blue")[0]
    assert (fine[blue == -9999] == 0).all()
    assert plan.grid.shape(10) == fine.shape


def test_dilation_reaches_across_tile_borders(north, tmp_path):
    wide = Scenery(north.folder, dataclasses.replace(NORTH, tile_px=60), mask_dilation=90)
    few = [s for s in north.scenes if s.items[0] in ("L0", "S2")]
    wide.items, wide.scenes, wide.radiometry = north.items, few, north.radiometry
    _, store = ingested(wide, tmp_path)
    fine = stored(store, "sentinel2/clear")[0]
    rows, cols = np.mgrid[: fine.shape[0], : fine.shape[1]]
    away = np.hypot(np.maximum(np.maximum(40 - rows, rows - 47), 0), np.maximum(np.maximum(60 - cols, cols - 67), 0))
    assert ((fine == 2) == ((away <= 9) & (fine != 0))).all()


@pytest.mark.parametrize(("hemisphere", "shift"), [("north", 0), ("south", 20)])
def test_point_targets_stay_where_they_are(hemisphere, shift, tmp_path):
    """One bright pixel per sensor at a known place; its centroid on the lattice is there to a twentieth of a pixel."""
    grid = NORTH if hemisphere == "north" else SOUTH
    epsg = 32650 if hemisphere == "north" else 32656
    false = 0 if hemisphere == "north" else 10_000_000
    s = Scenery(tmp_path / "in", grid)
    s.folder.mkdir()
    s.item("L", "landsat-c2-l2")
    s.item("L1", "landsat-c2l1")
    s.item("S", "sentinel-2-c1-l2a")
    corner = (grid.left - 615, grid.top - false + shift + 615)
    spots = {}
    for band in (*BANDS, "qa_pixel", "qa_radsat"):
        data = np.full((150, 150), 8000 if band in BANDS else (QA_CLEAR if band == "qa_pixel" else 0), np.uint16)
        if band in BANDS:
            data[60, 70] = 30000
        s.asset("L", band, data, epsg, *corner, 30)
    spots["landsat8"] = (corner[0] + 70.5 * 30, corner[1] + false - 60.5 * 30)
    data = np.full((300, 300), 6000, np.uint16)
    data[111, 131] = 20000
    s.asset("L1", PAN, data, epsg, corner[0] + 7.5, corner[1] - 7.5, 15)
    spots["landsat8_pan"] = (corner[0] + 7.5 + 131.5 * 15, corner[1] - 7.5 + false - 111.5 * 15)
    origin = (grid.left - 200, grid.top + 200 - (20 if shift else 0))
    for band in (*BANDS, "scl"):
        res = 10 if band in ("blue", "green", "red") else 20
        n = 4000 // res
        data = np.full((n, n), 1500 if band in BANDS else 4, np.uint16 if band in BANDS else np.uint8)
        if band in BANDS:
            at = (1200 // res, 1400 // res)
            data[at] = 9000
            spots[f"sentinel2/{band}"] = (origin[0] + (at[1] + 0.5) * res, origin[1] - (at[0] + 0.5) * res)
        s.asset("S", band, data, grid.epsg, *origin, res)
    s.radiometry = {"L": LANDSAT, "L1#pan": PAN_RULE, "S": SENTINEL}
    s.scene("landsat8", 0, ("L",), ("L1",))
    s.scene("sentinel2", 1, ("S",))
    _, store = ingested(s, tmp_path / "out")
    for group in (cube.SENTINEL2, cube.LANDSAT8, cube.LANDSAT8_PAN):
        for band in group.bands:
            values = stored(store, f"{group.name}/{band}")[0].astype(float)
            excess = np.where(values == -9999, 0, values - np.median(values))
            rows, cols = np.mgrid[: values.shape[0], : values.shape[1]] + 0.5
            x = grid.left + group.resolution * (excess * cols).sum() / excess.sum()
            y = grid.top - group.resolution * (excess * rows).sum() / excess.sum()
            want = spots.get(f"{group.name}/{band}") or spots[group.name]
            off = np.hypot(x - want[0], y - want[1]) / group.resolution
            assert off < 0.05, f"{group.name}/{band} is {off:.2f} px away"


def test_the_south_is_no_nearer_to_nothing(south, tmp_path):
    """Landsat in 326xx with negative northings fills a grid in 327xx."""
    _, store = ingested(south, tmp_path)
    clear = stored(store, "landsat8/clear")[0]
    assert (clear[:, 7:] != 0).all()
    assert (stored(store, "landsat8_pan/pan")[0] != -9999).all()


def test_neighbouring_zone_is_warped_alike_in_every_tiling(tmp_path):
    """A scene of the next UTM zone: tiles agree with the whole but for one unit in a thousandth of the pixels."""
    grid = Grid(32651, 300_000, 5_400_000, 60, 60, 120)
    far = rasterio.warp.transform("EPSG:32651", "EPSG:32650", [300_000.0], [5_400_000.0])
    left, top = round(far[0][0] / 20) * 20 - 1000, round(far[1][0] / 20) * 20 + 1000
    arrays = []
    for px, unit in ((120, 1), (120, 2), (360, 1)):
        s = Scenery(tmp_path / f"{px}x{unit}", dataclasses.replace(grid, tile_px=px))
        s.folder.mkdir()
        sentinel2(s, "S", np.random.default_rng(3), epsg=32650, left=left, top=top, px=600)
        s.scene("sentinel2", 0, ("S",))
        landsat(s, "L", 32651, grid.top, np.random.default_rng(4), 1, False)
        _, store = ingested(s, tmp_path / f"out{px}x{unit}", unit)
        arrays.append(np.stack([stored(store, f"sentinel2/{b}")[0] for b in BANDS]).astype(int))
    whole = arrays.pop()
    for found, what in zip(arrays, ("tiles", "units"), strict=True):
        differing, most = (found != whole).mean(), np.abs(found - whole).max()
        print(f"across zones {differing:.5%} of the pixels read in {what} are others, by at most {most} units of 1e-4")
        assert differing <= 5e-4
        assert most <= 1
    assert (whole != -9999).mean() > 0.7


def test_ledger_holds_checksums_and_clear_counts(north_run):
    plan, store = north_run
    tile = plan.grid.tile(0, 1)
    record = ledger.read(store, "ingest", tile.name)
    assert record is not None
    assert record.fingerprint == ingest_fingerprint(plan, tile)
    assert ledger.checksum(store, record.checksums) == record.checksums
    names = {p for p in store.names(INPUTS) if "/c/" in p and p.endswith("/0/1")}
    shards = {n for n in names if n.split("/")[2] in (*BANDS, "clear", PAN)}
    assert shards == {n for n, c in record.checksums.items() if c != ledger.ABSENT}
    clear = stored(store, "landsat8/clear")[(slice(None), *tile.roi(30))]
    assert record.stats["landsat8"] == [[int((d == v).sum()) for v in (1, 2, 0)] for d in clear]
    assert set(record.timings) == {"read", "write", "check"}


def test_two_runs_store_the_same_bytes(north, north_run, tmp_path):
    (plan, a), (_, b) = north_run, ingested(north, tmp_path)
    for tile in plan.grid.tiles():
        first, second = ledger.read(a, "ingest", tile.name), ledger.read(b, "ingest", tile.name)
        assert first is not None
        assert second is not None
        assert first.checksums == second.checksums


@pytest.mark.parametrize("fault", ["missing file", "not a raster", "truncated", "missing asset"])
def test_a_bad_asset_is_named_and_leaves_no_record(fault, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.reader.PAUSE", 0.01)
    s = Scenery(tmp_path / "in", NORTH)
    s.folder.mkdir()
    landsat(s, "L0", 32650, NORTH.top, np.random.default_rng(1), 0, False)
    path = s.files["L0", "swir16"]
    if fault == "missing file":
        path.unlink()
    elif fault == "not a raster":
        path.write_text("<html>Service unavailable</html>")
    elif fault == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        del s.items["L0"].assets["swir16"]
    plan, store = s.plan(), Store(str(tmp_path / "out"))
    cube.create_inputs(plan, store)
    with pytest.raises(AssetError, match=r"swir16.*L0|L0.*swir16") as caught:
        ingest_tile(plan, store, plan.grid.tile(0, 0), s.items)
    assert "plan anew" in str(caught.value)
    assert ledger.read(store, "ingest", "r000c000") is None


def test_a_signature_reaches_no_error(tmp_path, monkeypatch):
    """Hrefs are signed at the last moment, anew for each attempt, and what GDAL says of them is told without it."""
    monkeypatch.setattr("pipeline.reader.PAUSE", 0.01)
    signed: list[str] = []

    def refuse(href: str, **_: object) -> None:
        raise rasterio.errors.RasterioIOError(f"'/vsicurl/{href}' does not exist in the file system")

    def sign(self: object, href: str) -> str:
        signed.append(href)
        return f"https://some.blob.core.windows.net/L0/blue.tif?sig=SECRET{len(signed)}&se=2026"

    monkeypatch.setattr("pipeline.access.Access.sign", sign)
    monkeypatch.setattr("pipeline.reader.rasterio.open", refuse)
    s = Scenery(tmp_path / "in", NORTH)
    s.folder.mkdir()
    s.item("L0", "landsat-c2-l2")
    for key in (*BANDS, "qa_pixel", "qa_radsat"):
        s.items["L0"].add_asset(key, pystac.Asset(f"https://some.blob.core.windows.net/L0/{key}.tif"))
    s.radiometry["L0"] = LANDSAT
    s.scene("landsat8", 0, ("L0",))
    plan, store = s.plan(), Store(str(tmp_path / "out"))
    cube.create_inputs(plan, store)
    with pytest.raises(AssetError, match=r"windows.net/L0/blue.tif' does not exist") as caught:
        ingest_tile(plan, store, plan.grid.tile(0, 0), s.items)
    assert "SECRET" not in str(caught.value)
    assert "?" not in str(caught.value)
    assert max(signed.count(href) for href in signed) == reader.TRIES_READING


def test_an_item_whose_transform_leads_elsewhere_is_told_with_its_shares(tmp_path):
    """The files lie where they should; what the catalogue says of one scene's raster does not."""
    rng = np.random.default_rng(5)
    s = Scenery(tmp_path, NORTH)
    landsat(s, "L0", 32650, NORTH.top, rng, 0, False)
    for day in (2, 7):
        sentinel2(s, f"S{day}", rng)
        s.scene("sentinel2", day, (f"S{day}",))
    for (item, key), path in s.files.items():
        with rasterio.open(path) as file:
            placed = {
                "proj:code": str(file.crs),
                "proj:shape": list(file.shape),
                "proj:transform": [*file.transform][:6],
            }
        if item == "S7":
            placed["proj:transform"] = [10, 0, 500_000, 0, -10, 1_000_000]
        s.items[item].assets[key].extra_fields |= placed
    for item in s.items.values():
        item.stac_extensions.append("https://stac-extensions.github.io/projection/v2.0.0/schema.json")
    plan, store = ingested(s, tmp_path / "store")
    covering = plan.model_copy(update={"aoi": NORTH.geobox(10).geographic_extent.json})
    (lost,) = yields.missed(covering, store, s.items)
    assert (lost.item, lost.expected, lost.found) == ("S7", 1, 0)
    assert "S7" in lost.text
    assert "proj:transform" in lost.text
    assert (stored(store, "sentinel2/clear")[0] != 0).any()


def test_fingerprint_follows_what_shapes_pixels_and_nothing_else(north):
    plan = north.plan()
    tile = plan.grid.tile(0, 0)
    base = ingest_fingerprint(plan, tile)
    assert ingest_fingerprint(plan, plan.grid.tile(0, 1)) != base
    for change in (
        {"items_sha256": "1" * 64},
        {"options": plan.options.model_copy(update={"mask_dilation": 60})},
        {"versions": {"rasterio": "9"}},
        {"radiometry": {**plan.radiometry, "L0": SENTINEL}},
    ):
        assert ingest_fingerprint(plan.model_copy(update=change), tile) != base, change
    for harmless in ({"name": "other"}, {"options": plan.options.model_copy(update={"batch": 4})}):
        assert ingest_fingerprint(plan.model_copy(update=harmless), tile) == base, harmless


def test_half_of_a_shard_is_refused(north, tmp_path):
    plan, store = north.plan(), Store(str(tmp_path))
    cube.create_inputs(plan, store)
    target = cube.array(store, INPUTS, "sentinel2/blue", "r+")
    tile = plan.grid.tile(0, 0)
    with pytest.raises(CubeError, match="does not fill shards"):
        cube.write_block(target, slice(0, 1), tile, 10, np.zeros((1, 120, 120), np.int16))
    with pytest.raises(CubeError, match="does not fill shards"):
        cube.write_block(target, slice(0, 3), tile.padded(1), 10, np.zeros((3, 126, 126), np.int16))


def test_halving_keeps_the_worst():
    clear = np.array([[1, 1, 1, 2], [1, 1, 1, 1], [1, 0, 2, 2], [1, 2, 2, 2]], np.uint8)
    assert halved(clear).tolist() == [[1, 2], [0, 2]]


@pytest.fixture(scope="module")
def little(tmp_path_factory: pytest.TempPathFactory) -> Scenery:
    rng = np.random.default_rng(5)
    s = Scenery(tmp_path_factory.mktemp("little"), Grid(32650, 600_000, 5_400_000, 20, 10, 60))
    landsat(s, "L0", 32650, s.grid.top, rng, 0, True)
    sentinel2(s, "S2", rng)
    s.scene("sentinel2", 2, ("S2",))
    return s


def run_of(s: Scenery, folder: Path, *, together: bool = False, **changes: object) -> tuple[Plan, Store]:
    plan, store = s.plan().model_copy(update=changes), Store(str(folder))
    cube.create_inputs(plan, store)
    tiles = list(plan.grid.tiles())
    for some in [tiles] if together else [[tile] for tile in tiles]:
        ingest_tiles(plan, store, some, s.items, some[0].name)
    return plan, store


def test_a_unit_takes_over_what_each_of_its_tiles_has_from_before(little, tmp_path, monkeypatch):
    """One tile was finished under the earlier plan, its neighbour was not: the new date is read for both."""
    s = Scenery(tmp_path / "in", little.grid)
    s.folder.mkdir()
    s.items, s.radiometry, s.scenes = dict(little.items), dict(little.radiometry), list(little.scenes)
    plan, store = s.plan(), Store(str(tmp_path / "grown"))
    store.write(ITEMS, json.dumps(pystac.ItemCollection(s.items.values()).to_dict(transform_hrefs=False)).encode())
    store.write(PLAN, plan.model_dump_json().encode())
    cube.create_inputs(plan, store)
    tiles = list(plan.grid.tiles())
    ingest_tile(plan, store, tiles[0], s.items)
    sentinel2(s, "S7", np.random.default_rng(7))
    s.scene("sentinel2", 7, ("S7",))
    new = s.plan()
    growth.begin(store, new, pystac.ItemCollection(s.items.values()))
    cube.create_inputs(new, store)
    read = []
    monkeypatch.setattr(reader, "_warp", lambda href, *a: read.append(href) or warp(href, *a))
    ingest_tiles(new, store, tiles[:1], s.items, "one")
    assert {Path(href).name.partition("_")[0] for href in read} == {"S7"}
    ledger.clear(store, "ingest")
    ingest_tiles(new, store, tiles, s.items, "both")
    _, fresh = run_of(s, tmp_path / "fresh")
    for tile in tiles:
        one, other = (ledger.read(place, "ingest", tile.name) for place in (store, fresh))
        assert one.checksums == other.checksums
        assert one.stats == other.stats | {UNIT: "both"}


warp = reader._warp


def by_itself(client, stage, function, tiles, arguments, *, resource, listener, retries=2):
    """tasks.map_tiles without a cluster, and with one attempt."""
    results, failures = [], []
    for tile in tiles:
        try:
            results.append(function(tile.row, tile.col, *arguments))
        except AssetError as error:
            failures.append(Failure(tile.name, str(error)))
            listener(TileFailed(stage, tile.name, str(error)))
        else:
            listener(TileDone(stage, tile.name, results[-1].seconds, results[-1].timings))
    return results, failures


def test_a_bad_block_fails_the_tiles_that_touch_it_and_no_other(north, north_run, tmp_path, monkeypatch):
    """Read in a unit it fails that; tile by tile the others are there, and a whole file lets the rest go on."""
    monkeypatch.setattr("pipeline.reader.PAUSE", 0.001)
    monkeypatch.setattr(job, "map_tiles", by_itself)
    monkeypatch.setattr(job, "_side", lambda *_: 2)
    monkeypatch.setattr(job, "reading", lambda client: "IO")
    monkeypatch.setattr("pipeline.cluster.described", lambda client: [])
    s = Scenery(tmp_path / "in", NORTH)
    s.folder.mkdir()
    s.items, s.radiometry, s.scenes = north.items, north.radiometry, north.scenes
    path = tmp_path / "in" / "blue.tif"
    with rasterio.open(north.files["S7", "blue"]) as file:
        profile, pixels = file.profile | {"compress": "deflate"}, file.read()
    with rasterio.open(path, "w", **profile) as copy:
        copy.write(pixels)
    with rasterio.open(path) as file:
        # the file begins 20 px outside of the grid: the block holds its rows to 107 and columns from 236 on
        assert file.block_shapes == [(128, 128)]
        offset, size = (int(file.get_tag_item(f"BLOCK_{what}_2_0", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE"))
    good = path.read_bytes()
    path.write_bytes(good[:offset] + b"\xff" * size + good[offset + size :])
    s.items = {name: item.clone() for name, item in s.items.items()}
    s.items["S7"].assets["blue"].href = str(path)
    area = NORTH.geobox(10).geographic_extent.json
    found, store = pystac.ItemCollection(s.items.values()), Store(str(tmp_path / "out"))
    plan = s.plan().model_copy(update={"aoi": area, "items_sha256": items.sha256(found)})
    store.write(ITEMS, json.dumps(found.to_dict(transform_hrefs=False)).encode())
    store.write(PLAN, plan.model_dump_json().encode())
    told = []
    with pytest.raises(MarstfnError, match=r"1 of 4 tiles failed \(r000c001.*S7"):
        job.ingest(job.Job(plan, store, s.items), None, told.append)
    assert [e.text for e in told if isinstance(e, Note) and e.kind == "unit"]
    assert [e.tile for e in told if isinstance(e, TileFailed)] == ["r000c001"]
    done = {e.tile for e in told if isinstance(e, TileDone)}
    assert done == {"r000c000", "r001c000", "r001c001"}
    path.write_bytes(good)
    told.clear()
    job.ingest(job.Job(plan, store, s.items), None, told.append)
    assert [e.tile for e in told if isinstance(e, TileDone)] == ["r000c001"]
    for tile in plan.grid.tiles():
        one, other = (ledger.read(place, "ingest", tile.name) for place in (store, north_run[1]))
        assert one.checksums == other.checksums


def test_an_items_factors_multiply_its_bands_and_leave_pan_and_masks_alone(little, tmp_path):
    factors = (0.95, 0.96, 0.97, 1.05, 1.04, 1.03)
    angles = Nadir(sun_zenith=40, view_zenith=8, relative_azimuth=30, factors=factors, source="test")
    _, plain = run_of(little, tmp_path / "plain")
    _, seen = run_of(little, tmp_path / "nadir", nbar={"L0": angles, "S2": angles})
    for group in (cube.LANDSAT8, cube.SENTINEL2):
        for band, factor in zip(BANDS, factors, strict=True):
            before, after = (stored(store, f"{group.name}/{band}").astype(int) for store in (plain, seen))
            assert ((before == -9999) == (after == -9999)).all()
            known = before != -9999
            # rounded once, from the numbers: within a unit of what is rounded twice
            assert np.abs(after[known] - factor * before[known]).max() <= 0.5 + 0.5 * factor
        assert (stored(plain, f"{group.name}/clear") == stored(seen, f"{group.name}/clear")).all()
    assert (stored(plain, "landsat8_pan/pan") == stored(seen, "landsat8_pan/pan")).all()


def test_a_day_of_two_satellites_has_each_item_at_its_own_band_pass_after_its_view(little, tmp_path):
    """2C lies over 2B: its pixels are factored and then adjusted, those it leaves open are as they were."""
    s = Scenery(tmp_path / "in", little.grid)
    s.folder.mkdir()
    rng = np.random.default_rng(8)
    sentinel2(s, "C", rng, top=little.grid.top)  # its first 200 m hold nothing
    sentinel2(s, "B", rng)
    s.items["C"].properties["platform"], s.items["B"].properties["platform"] = "Sentinel-2C", "sentinel-2b"
    s.scene("sentinel2", 2, ("C", "B"))
    scale, offset, factor = (1.02, 0.97, 1.0, 1.5, 0.5, 1.1), (0.01, -0.02, 0.0, 0.1, -0.1, 0.003), 0.9
    twin = Adjustment(platform="sentinel-2c", scale=scale, offset=offset)
    other = Adjustment(platform="landsat-8", scale=offset, offset=scale)
    angles = Nadir(sun_zenith=40, view_zenith=8, relative_azimuth=30, factors=(factor,) * 6, source="test")
    _, plain = run_of(s, tmp_path / "plain")
    options = s.options.model_copy(update={"adjustments": (other, twin)})
    _, own = run_of(s, tmp_path / "own", options=options, nbar={"C": angles})
    _, unit = run_of(s, tmp_path / "unit", options=options, nbar={"C": angles}, together=True)
    s.scenes = [s.scenes[0].model_copy(update={"items": ("C",)})]
    _, alone = run_of(s, tmp_path / "alone")
    for index, band in enumerate(BANDS):
        before, after, top = (stored(x, f"sentinel2/{band}")[0].astype(int) for x in (plain, own, alone))
        assert (stored(unit, f"sentinel2/{band}")[0] == after).all()
        on_top, below = top != -9999, (top == -9999) & (before != -9999)
        assert on_top.any()
        assert below.any()
        expected = scale[index] * factor * before + 1e4 * offset[index]
        assert np.abs(after - expected)[on_top].max() <= 0.5 + 0.5 * scale[index] * factor + 1e-3
        assert (after[below] == before[below]).all()


def test_a_mask_that_looks_at_bands_stands_in_for_the_products_own(little, tmp_path, monkeypatch):
    """A stand-in that takes what is bright in red for cloud; it is shown the ground around a tile, too."""
    shown = []

    def bright(values, resolution):
        shown.append((values.shape, resolution))
        with np.errstate(invalid="ignore"):
            return values[0] > 0.3

    monkeypatch.setattr(cloudmask, "find", lambda name: cloudmask.Learned(("red", "nir08"), bright))
    little.options = Options(time_shard=3, mask_dilation=0, cloud_mask="omnicloudmask")
    plan, store = run_of(little, tmp_path / "tiles")
    _, unit = run_of(little, tmp_path / "unit", together=True)
    little.options = Options(time_shard=3, mask_dilation=0)
    around = 2 * cloudmask.CONTEXT
    assert set(shown) == {((2, 60 + around, 60 + around), 10.0), ((2, 20 + around, 20 + around), 30.0)}
    for group in (cube.LANDSAT8, cube.SENTINEL2):
        clear, red = stored(store, f"{group.name}/clear"), stored(store, f"{group.name}/red")
        known = clear != cube.NOTHING
        assert (clear[known] == np.where(red[known] > 3000, cube.MASKED, cube.CLEAR)).all()
        assert (clear[known] == cube.MASKED).any()
        assert (stored(unit, f"{group.name}/clear") == clear).all()
    assert ingest_fingerprint(plan, plan.grid.tile(0, 0)) != ingest_fingerprint(little.plan(), plan.grid.tile(0, 0))


def test_a_learned_mask_leaves_no_seam_between_tiles(little, tmp_path, monkeypatch):
    """Its own growing reaches over the edge of a tile."""
    monkeypatch.setattr(cloudmask, "find", lambda name: cloudmask.Learned(("red",), lambda v, r: v[0] > 0.395))
    found = {}
    for side, together in ((60, False), (60, True), (120, False)):
        s = little
        grid, s.grid = s.grid, Grid(32650, 600_000, 5_400_000, 20, 10, side)
        s.options = Options(time_shard=3, mask_dilation=60, cloud_mask="omnicloudmask")
        folder = tmp_path / f"{side}-{together}"
        found[side, together] = stored(run_of(s, folder, together=together)[1], "sentinel2/clear")
        s.grid, s.options = grid, Options(time_shard=3, mask_dilation=0)
    assert (found[60, False] == found[120, False]).all()
    assert (found[60, True] == found[60, False]).all()


def test_a_mask_whose_package_is_missing_is_refused_with_the_way_to_have_it(monkeypatch):
    cloudmask.find.cache_clear()
    monkeypatch.setattr(cloudmask.importlib.util, "find_spec", lambda name: None)
    assert cloudmask.find("product") is None
    with pytest.raises(
        PlanError, match=r"omnicloudmask, which is not installed.*marstfn\[clouds\].*--cloud-mask product"
    ):
        cloudmask.find("omnicloudmask")
    cloudmask.find.cache_clear()


def test_omnicloudmask_is_shown_pixels_it_knows_and_nothing_as_nothing(monkeypatch):
    """Its weights cannot be had in a test: its one function is stood in for, by the signature of release 1.8."""
    given = {}

    def predict_from_array(array, patch_size, patch_overlap):
        given.update(array=array, patch_size=patch_size, patch_overlap=patch_overlap)
        return np.arange(array[0].size).reshape(1, *array[0].shape) % 4

    monkeypatch.setitem(sys.modules, "omnicloudmask", SimpleNamespace(predict_from_array=predict_from_array))
    values = np.full((3, 40, 50), 0.2, np.float32)
    values[1, 0, 1], values[0, 0, 2] = np.nan, -0.01
    found = cloudmask.omnicloudmask(values, 10.0)
    assert found.shape == (40, 50)
    assert found[0, :5].tolist() == [False, False, True, True, False]  # clear, nothing, thin, shadow, clear
    assert (given["array"][:, 0, 1] == 0).all()  # its mark of nothing
    assert given["array"][0, 0, 2] > 0  # dark is something
    assert (given["patch_size"], given["patch_overlap"]) == (40, 20)
    with pytest.raises(ValueError, match="10 to 50 m"):
        cloudmask.omnicloudmask(values, 60.0)
    assert not cloudmask.omnicloudmask(np.full((3, 4, 4), np.nan, np.float32), 30.0).any()
