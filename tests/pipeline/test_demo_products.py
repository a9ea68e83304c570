"""The simulated products as a client reads them: exactly what the simulation renders, on grids like the real ones."""

import json
import os
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import odc.stac
import pystac
import pystac_client
import pytest
import rasterio
from odc.geo.geobox import GeoBox

from marstfn.bands import BANDS
from marstfn.simulate import Simulation
from pipeline.demo.landsat import LEVEL1, LEVEL2
from pipeline.demo.products import PIECE, Place, write_acquisition, write_catalogue
from pipeline.demo.raster import File, Raster, write
from pipeline.demo.sentinel import BAND_NAME, COLLECTION1, L2A
from pipeline.errors import PlanError, StoreError
from pipeline.grid import Grid
from tests.conftest import Served

GDAL = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
STAC_CFG = {
    L2A: {"assets": {"*": {"data_type": "uint16", "nodata": 0}, "SCL": {"data_type": "uint8", "nodata": 0}}},
    LEVEL1: {"assets": {"*": {"data_type": "uint16", "nodata": 0}}},
    "*": {"warnings": "ignore"},
}


def items(catalogue: Served, collection: str) -> list[pystac.Item]:
    client = pystac_client.Client.open(catalogue.url)
    return list(client.search(collections=[collection], limit=7).items())


def passes(catalogue: Served) -> dict[str, object]:
    wanted = [a for a in catalogue.simulation.acquisitions() if 5 <= a.time.month < 9]
    return {name: acq for acq in wanted for name in (acq.scene_id, acq.product_id, acq.level1_id)}


def read(item: pystac.Item, asset: str) -> tuple[np.ndarray, dict[str, object]]:
    with rasterio.Env(**GDAL), rasterio.open(item.assets[asset].href) as source:
        return source.read(1), source.profile


@pytest.mark.parametrize(
    ("collection", "keys"),
    [
        (LEVEL2, {band: band for band in (*BANDS, "qa_pixel", "qa_radsat")}),
        (LEVEL1, {"pan": "pan"}),
        (COLLECTION1, {band: band for band in (*BANDS, "scl")}),
        (L2A, {BAND_NAME[band]: band for band in BANDS} | {"SCL": "scl"}),
    ],
)
def test_files_hold_what_the_simulation_renders_on_the_sensors_grid(
    catalogue: Served, collection: str, keys: dict[str, str]
) -> None:
    known = passes(catalogue)
    found = items(catalogue, collection)
    assert len(found) == (8 if collection in (LEVEL1, LEVEL2) else 24)
    for item in found[:3]:
        acq = known[item.id]
        specs = catalogue.simulation.assets(acq)
        for key, name in keys.items():
            values, profile = read(item, key)
            spec = specs[name]
            t = profile["transform"]
            assert (t.a, t.e, profile["dtype"], profile["nodata"]) == (
                spec.resolution, -spec.resolution, spec.dtype, spec.nodata,
            )  # fmt: skip
            assert (t.c - spec.corner_modulo) % spec.resolution == 0
            assert (t.f - spec.corner_modulo) % spec.resolution == 0
            expected = catalogue.simulation.render(acq, name, t.c, t.f, values.shape)
            np.testing.assert_array_equal(values, expected)
            box = catalogue.grid.geobox(10).boundingbox
            assert t.c <= box.left - 200
            assert t.f >= box.top + 200
            assert t.c + values.shape[1] * spec.resolution >= box.right + 200
            assert t.f - values.shape[0] * spec.resolution <= box.bottom - 200


def test_files_are_cloud_optimised(catalogue: Served) -> None:
    for collection, key in ((LEVEL2, "red"), (LEVEL1, "pan"), (COLLECTION1, "blue"), (COLLECTION1, "scl")):
        item = items(catalogue, collection)[0]
        with rasterio.Env(**GDAL), rasterio.open(item.assets[key].href) as source:
            structure = source.tags(ns="IMAGE_STRUCTURE")
            assert (structure["LAYOUT"], structure["COMPRESSION"], structure["PREDICTOR"]) == ("COG", "DEFLATE", "2")
            assert source.block_shapes == [(128, 128)]


@pytest.mark.parametrize("collection", [LEVEL2, COLLECTION1])
def test_odc_stac_reads_scale_type_and_grid_from_the_items_alone(catalogue: Served, collection: str) -> None:
    item = items(catalogue, collection)[0]
    with rasterio.Env(**GDAL):
        cube = odc.stac.load([item], bands=["red"], fail_on_error=True)
    values, profile = read(item, "red")
    np.testing.assert_array_equal(cube.red.values[0], values)
    assert cube.red.dtype == "uint16"
    assert cube.red.attrs["nodata"] == 0
    assert cube.odc.geobox.affine == profile["transform"]
    (band,) = item.assets["red"].to_dict()["raster:bands"]
    expected = {LEVEL2: (2.75e-5, -0.2), COLLECTION1: (1e-4, -0.1)}[collection]
    assert (band["scale"], band["offset"], band["nodata"]) == (*expected, 0)


def test_pan_item_states_the_30_m_grid_as_the_real_ones_do_yet_a_geobox_reads_all_of_it(catalogue: Served) -> None:
    item = items(catalogue, LEVEL1)[0]
    values, profile = read(item, "pan")
    raw = item.to_dict()["properties"]
    assert raw.get("proj:transform", item.ext.proj.transform)[0] == 30
    box = GeoBox(values.shape, profile["transform"], "EPSG:32650")
    with rasterio.Env(**GDAL):
        cube = odc.stac.load([item], bands=["pan"], geobox=box, stac_cfg=STAC_CFG, fail_on_error=True)
    np.testing.assert_array_equal(cube.pan.values[0], values)
    (level2,) = [i for i in items(catalogue, LEVEL2) if i.datetime == item.datetime]
    bands, thirty = read(level2, "red")
    assert values.shape == (2 * bands.shape[0] - 1, 2 * bands.shape[1] - 1)
    assert (profile["transform"].c, profile["transform"].f) == (
        thirty["transform"].c + 7.5, thirty["transform"].f - 7.5,
    )  # fmt: skip
    assert item.properties["landsat:scene_id"] == level2.properties["landsat:scene_id"]


def test_pan_metadata_are_those_of_level_1(catalogue: Served) -> None:
    item = items(catalogue, LEVEL1)[0]
    path = item.assets["MTL.json"].href.removeprefix(catalogue.url + "/")
    level1 = json.loads((catalogue.folder / path).read_text())["LANDSAT_METADATA_FILE"]
    scaling = level1["LEVEL1_RADIOMETRIC_RESCALING"]
    assert (float(scaling["REFLECTANCE_MULT_BAND_8"]), float(scaling["REFLECTANCE_ADD_BAND_8"])) == (2e-5, -0.1)
    elevation = float(level1["IMAGE_ATTRIBUTES"]["SUN_ELEVATION"])
    assert elevation == pytest.approx(item.properties["view:sun_elevation"], abs=1e-8)
    (other,) = [i for i in items(catalogue, LEVEL2) if i.datetime == item.datetime]
    path = other.assets["mtl.json"].href.removeprefix(catalogue.url + "/")
    level2 = json.loads((catalogue.folder / path).read_text())["LANDSAT_METADATA_FILE"]
    assert level2["LEVEL1_PROCESSING_RECORD"]["LANDSAT_PRODUCT_ID"] == item.id
    assert level2["LEVEL2_SURFACE_REFLECTANCE_PARAMETERS"]["REFLECTANCE_MULT_BAND_4"] == "2.75e-05"
    assert level2["LEVEL1_RADIOMETRIC_RESCALING"]["REFLECTANCE_MULT_BAND_4"] == "2.0000E-05"

    def strings(value: object) -> bool:
        return all(strings(v) for v in value.values()) if isinstance(value, dict) else isinstance(value, str)

    assert strings(level1)
    assert strings(level2)


def test_ids_and_properties_look_like_the_recorded_ones(catalogue: Served) -> None:
    shapes = {
        LEVEL2: r"LC08_L2SP_\d{6}_\d{8}_02_T1",
        LEVEL1: r"LC08_L1TP_\d{6}_\d{8}_\d{8}_02_T1",
        COLLECTION1: r"S2[AB]_T50[A-Z]{3}_\d{8}T\d{6}_L2A",
        L2A: r"S2[AB]_MSIL2A_\d{8}T\d{6}_N05\d\d_R\d{3}_T50[A-Z]{3}_\d{8}T\d{6}",
    }
    for collection, shape in shapes.items():
        found = items(catalogue, collection)
        assert len({i.id for i in found}) == len(found)
        assert all(re.fullmatch(shape, i.id) for i in found)
        assert all(i.properties["simulated"] is True for i in found)
        assert all(i.collection_id == collection for i in found)
    level1 = items(catalogue, LEVEL1)[0]
    assert re.fullmatch(r"LC8\d{6}2023\d{3}LGN00", level1.properties["landsat:scene_id"])
    assert level1.properties["platform"] == "LANDSAT_8"
    client = pystac_client.Client.open(catalogue.url)
    for collection in client.get_collections():
        assert collection.description.split(". ")[1].startswith("SIMULATED")
    assert client.to_dict()["simulated"] is True


@pytest.mark.shared
@pytest.mark.parametrize(
    ("collection", "record"),
    [
        (LEVEL2, "planetary-computer/landsat-c2-l2/LC08_L2SP_033032_20241127_02_T1.json"),
        (COLLECTION1, "earth-search-v1/sentinel-2-c1-l2a/S2A_T13TDE_20240402T174230_L2A.json"),
        (L2A, "planetary-computer/sentinel-2-l2a/S2B_MSIL2A_20241203T174629_R098_T13TDE_20241203T211406.json"),
        (LEVEL1, "usgs-landsatlook/landsat-c2l1/LM02_L1GS_001004_19750411_20200908_02_T2.json"),
    ],
)
def test_items_have_the_shape_of_recorded_ones(catalogue: Served, shared: Path, collection: str, record: str) -> None:
    real = json.loads((shared / "stac" / record).read_text())
    ours = json.loads(next((catalogue.folder / "items" / collection).glob("*.json")).read_text())
    # what ours say the real ones say too, in the same types; the real ones say more
    extra = {"simulated", "created"}
    for name, value in ours["properties"].items():
        if name not in extra:
            assert isinstance(value, type(real["properties"][name])), name
    for key in set(ours["assets"]) & set(real["assets"]):
        mine, theirs = ours["assets"][key], real["assets"][key]
        assert set(mine) <= set(theirs), key
        for field in ("type", "roles"):
            assert mine[field] == theirs[field], (key, field)
        if "raster:bands" in theirs:
            assert [b | {"unit": 0} for b in mine["raster:bands"]] == [b | {"unit": 0} for b in theirs["raster:bands"]]
        mine_bands, theirs_bands = mine.get("eo:bands", []), theirs.get("eo:bands", [])
        if collection != LEVEL1:
            assert [b["common_name"] for b in mine_bands] == [b["common_name"] for b in theirs_bands], key
    assert set(ours["assets"]) - set(real["assets"]) <= {"pan"}


def test_footprint_holds_the_pixels(catalogue: Served) -> None:
    for collection in (LEVEL2, COLLECTION1):
        item = items(catalogue, collection)[0]
        _, profile = read(item, "red")
        box = GeoBox((profile["height"], profile["width"]), profile["transform"], profile["crs"])
        west, south, east, north = item.bbox
        exact = box.geographic_extent.boundingbox
        np.testing.assert_allclose((west, south, east, north), (exact.left, exact.bottom, exact.right, exact.top),
                                   atol=2e-5)  # fmt: skip


@pytest.fixture(scope="module")
def small() -> tuple[Simulation, tuple[float, float, float, float]]:
    return Simulation(seed=4, year=2022), (600_000.0, 5_000_040.0, 600_600.0, 5_000_640.0)


def test_a_second_call_makes_nothing_anew_and_a_killed_one_is_finished(small, tmp_path: Path) -> None:
    simulation, bounds = small
    some = simulation.acquisitions()[:4]
    seen: list[tuple[int, int, str]] = []

    def write() -> int:
        seen.clear()
        written = write_catalogue(
            simulation, bounds, tmp_path / "c", acquisitions=some, processes=1, progress=lambda *a: seen.append(a)
        )
        return written.made

    assert write() == 4
    assert seen == [(n + 1, 4, acq.scene_id) for n, acq in enumerate(some)]
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (tmp_path / "c" / "data").rglob("*.*") if p.is_file()}
    assert write() == 0
    assert seen == []
    victim = next((tmp_path / "c" / "items" / COLLECTION1).glob("*.json"))
    victim.unlink()
    assert write() == 1
    after = {p: p.read_bytes() for p in before}
    assert after == {p: content for p, (_, content) in before.items()}
    assert not list((tmp_path / "c").rglob("*.draft"))
    assert not list((tmp_path / "c").rglob("*.part"))


def test_processes_make_no_difference(small, tmp_path: Path) -> None:
    simulation, bounds = small
    some = simulation.acquisitions()[:3]
    for name, processes in (("one", 1), ("two", 2)):
        write_catalogue(simulation, bounds, tmp_path / name, acquisitions=some, processes=processes)
    one = {p.relative_to(tmp_path / "one"): p.read_bytes() for p in (tmp_path / "one").rglob("*") if p.is_file()}
    two = {p.relative_to(tmp_path / "two"): p.read_bytes() for p in (tmp_path / "two").rglob("*") if p.is_file()}
    assert one == two


def test_refusals_name_what_where_and_the_remedy(small, tmp_path: Path) -> None:
    simulation, bounds = small
    some = simulation.acquisitions()[:1]
    write_catalogue(simulation, bounds, tmp_path / "mine", acquisitions=some, processes=1)
    other = Simulation(seed=5, year=2022, style=simulation.style.held_back(np.random.default_rng(1)))
    with pytest.raises(StoreError, match=r"mine holds another simulation \(differs in seed, style\).*Choose another"):
        write_catalogue(other, bounds, tmp_path / "mine", acquisitions=some, processes=1)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("x")
    with pytest.raises(StoreError, match=r"photos is not empty and holds no simulation.*Choose another folder"):
        write_catalogue(simulation, bounds, tmp_path / "photos", acquisitions=some, processes=1)
    assert [p.name for p in (tmp_path / "photos").iterdir()] == ["cat.jpg"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"cannot write the simulated scenes to .*file.*choose a folder"):
        write_catalogue(simulation, bounds, tmp_path / "file", acquisitions=some, processes=1)
    with pytest.raises(PlanError, match=r"EPSG:32651, the simulation in EPSG:32650.*Simulate over EPSG:32651"):
        write_catalogue(simulation, Grid(32651, 0, 60, 1, 1, 60), tmp_path / "x")
    with pytest.raises(PlanError, match=r"bounds .* are empty"):
        write_catalogue(simulation, (0, 0, 0, 60), tmp_path / "x")
    with pytest.raises(PlanError, match=r"EPSG:32750.*Simulate over EPSG:32650 with negative northings"):
        write_catalogue(Simulation(1, 2022, 32750), bounds, tmp_path / "x")
    with pytest.raises(PlanError, match="no acquisition"):
        write_catalogue(simulation, bounds, tmp_path / "x", acquisitions=[])
    assert not (tmp_path / "x").exists()


def test_south_of_the_equator_landsat_counts_northings_through_it_and_sentinel_2_does_not(tmp_path: Path) -> None:
    simulation = Simulation(seed=4, year=2022)
    grid = Grid(epsg=32750, left=600_000, top=9_000_000, columns=10, rows=10, tile_px=60)
    acqs = simulation.acquisitions()
    landsat = next(a for a in acqs if a.landsat)
    sentinel = next(a for a in acqs if not a.landsat)
    write_catalogue(simulation, grid, tmp_path / "c", acquisitions=[landsat, sentinel], processes=1)
    west, south, east, north = grid.geobox(10).geographic_extent.boundingbox
    for collection in (LEVEL2, COLLECTION1):
        item = json.loads(next((tmp_path / "c" / "items" / collection).glob("*.json")).read_text())
        w, s, e, n = item["bbox"]
        assert w < west < east < e
        assert s < south < north < n
        path = tmp_path / "c" / item["assets"]["red"]["href"]
        with rasterio.open(path) as source:
            t, values = source.transform, source.read(1)
            assert source.crs.to_epsg() == item["properties"]["proj:epsg"]
        if collection == LEVEL2:
            assert item["properties"]["proj:epsg"] == 32650
            assert (t.c % 30, t.f % 30, t.f < 0) == (15, 15, True)
            expected = simulation.render(landsat, "red", t.c, t.f, values.shape)
        else:
            assert item["properties"]["proj:epsg"] == 32750
            # recorded southern tiles: 0 modulo 60 in x, 40 modulo 60 in y
            assert (t.c % 60, t.f % 60) == (0, 40)
            expected = simulation.render(sentinel, "red", t.c, t.f - 10_000_000, values.shape)
        np.testing.assert_array_equal(values, expected)


def test_a_large_scene_is_written_piece_by_piece_and_equals_one_render(small, tmp_path: Path) -> None:
    simulation, _ = small
    acq = next(a for a in simulation.acquisitions() if a.landsat and 5 < a.cloud_cover < 80)
    bounds = (600_000.0, 5_000_040.0, 604_200.0, 5_000_340.0)
    write_acquisition(simulation, acq, Place.of(simulation, bounds), tmp_path)
    for pattern, name in (("*_SR_B5.TIF", "nir08"), ("*_B8.TIF", "pan"), ("*_QA_PIXEL.TIF", "qa_pixel")):
        (path,) = tmp_path.rglob(pattern)
        with rasterio.open(path) as source:
            t, values = source.transform, source.read(1)
        assert values.shape[1] * t.a > 2 * PIECE
        np.testing.assert_array_equal(values, simulation.render(acq, name, t.c, t.f, values.shape))


@pytest.mark.parametrize(("continuous", "expected"), [(True, 5), (False, 2)])
def test_large_files_have_overviews_which_do_not_mix_classes(tmp_path: Path, continuous: bool, expected: int) -> None:
    file = File(tmp_path / "a.tif", Raster(32650, 0.0, 0.0, 10, (700, 1300)), "uint8", 0, continuous)
    columns = np.tile(np.array([2, 8], np.uint8), (700, 650))
    write(file, columns)
    with rasterio.open(file.path) as source:
        assert source.overviews(1)[:2] == [2, 4]
        np.testing.assert_array_equal(source.read(1), columns)
    with rasterio.open(file.path, overview_level=0) as source:
        assert int(source.read(1)[100, 100]) == expected
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


@pytest.mark.server
def test_memory_does_not_grow_with_the_scene(tmp_path: Path) -> None:
    """Peak of a process that writes one Sentinel-2 scene of 17 and of 100 km2."""
    code = (
        "import sys, psutil\nfrom pathlib import Path\nfrom threading import Event, Thread\n"
        "from marstfn.simulate import Simulation\n"
        "from pipeline.demo.products import PIECE, Place, write_acquisition\n"
        "side = float(sys.argv[2])\ns = Simulation(seed=4, year=2022)\n"
        "a = next(a for a in s.acquisitions() if not a.landsat)\n"
        "place = Place.of(s, (600000.0, 5000040.0, 600000.0 + side, 5000040.0 + side))\n"
        # not ru_maxrss: a child begins with the peak of the process that started it
        "seen, done, own = [0], Event(), psutil.Process()\n"
        "def watch():\n"
        "    while not done.wait(0.01): seen.append(own.memory_info().rss)\n"
        "watching = Thread(target=watch)\nwatching.start()\n"
        "write_acquisition(s, a, place, Path(sys.argv[1]))\ndone.set()\nwatching.join()\n"
        "print(max(seen))\n"
    )
    peaks = []
    for name, side in (("small", 3600), ("large", 9600)):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / name), str(side)],
            env={**os.environ, "GDAL_CACHEMAX": "64"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        peaks.append(int(done.stdout) / 1024**2)
    assert peaks[0] > 50
    assert peaks[1] < 400
    assert peaks[1] < peaks[0] + 120


def test_the_demo_year_has_what_the_demo_needs() -> None:
    acqs = Simulation(seed=1, year=2023).acquisitions()
    landsat = [a for a in acqs if a.landsat]
    assert len(landsat) >= 22
    assert len(acqs) - len(landsat) == 73
    assert len({a.scene_id for a in acqs}) == len(acqs)
    assert all(date(2023, 1, 1) <= a.time.date() <= date(2023, 12, 31) for a in acqs)
