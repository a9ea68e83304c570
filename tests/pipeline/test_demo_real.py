"""The real scenes as a catalogue serves them: every number read back over HTTP is the source's, in its true place."""

import json
import re
from datetime import datetime
from pathlib import Path

import netCDF4
import numpy as np
import odc.stac
import pystac
import pystac_client
import pytest
import rasterio
from odc.geo.geobox import GeoBox
from scipy.ndimage import gaussian_filter, map_coordinates

from marstfn.bands import BANDS
from pipeline import profiles
from pipeline.demo.server import Remote, serve
from pipeline.radiometry import radiometry
from tests.pipeline import real

pytestmark = pytest.mark.shared

GDAL = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
L8 = dict(zip(BANDS, ("B02", "B03", "B04", "B05", "B06", "B07"), strict=True))


@pytest.fixture(scope="module")
def flanders(shared: Path, tmp_path_factory: pytest.TempPathFactory):
    made = real.write_flanders(shared, tmp_path_factory.mktemp("flanders"))
    with serve(made.folder) as server:
        yield made, server


@pytest.fixture(scope="module")
def india(shared: Path, tmp_path_factory: pytest.TempPathFactory):
    made = real.write_india(shared, tmp_path_factory.mktemp("india"))
    with serve(made.folder) as server:
        yield made, server


def items(server: Remote, collection: str) -> list[pystac.Item]:
    client = pystac_client.Client.open(server.url)
    return sorted(client.search(collections=[collection], limit=50).items(), key=lambda i: i.datetime)


def numbers(profile: str) -> dict[str, object]:
    """Number types of a catalogue's own assets, for odc-stac."""
    return {
        product.collection: {
            "assets": {
                key: dict(zip(("data_type", "nodata"), product.numbers(key), strict=True)) for key in product.keys
            }
        }
        for product in profiles.PROFILES[profile].products
    }


def load(found: list[pystac.Item], bands: list[str], box: GeoBox, profile: str, resampling: str = "nearest"):
    with rasterio.Env(**GDAL):
        return odc.stac.load(
            found, bands=bands, geobox=box, groupby="id", stac_cfg=numbers(profile),
            fail_on_error=True, preserve_original_order=True, resampling=resampling,
        )  # fmt: skip


def source(shared: Path, name: str) -> netCDF4.Dataset:
    (path,) = (shared / real.FLANDERS).glob(f"{name}_*.nc")
    data = netCDF4.Dataset(path)
    data.set_auto_maskandscale(False)
    return data


def test_flanders_landsat_reads_back_as_the_source_s_reflectance_on_the_true_grid(flanders, shared: Path) -> None:
    made, server = flanders
    found = items(server, "landsat-c2-l2")
    assert len(found) == 26
    box = GeoBox((20, 21), rasterio.Affine(30, 0, 501_375, 0, -30, 5_629_665), "EPSG:32631")
    cube = load(found, [*BANDS, "qa_pixel"], box, made.profile)
    data = source(shared, "L8_SR_10m")
    for band in BANDS:
        # row 3 and column 2 are the middles of the first whole block
        values = data[L8[band]][:, 3:62:3, 2:64:3]
        got = cube[band].values
        fill = (values == 64537) | (values == 0)
        np.testing.assert_array_equal(got == 0, fill)
        negative = values > 60_000
        expected = np.where(negative, values.astype(float) - 65536, values) * 1e-4
        error = (got * 2.75e-5 - 0.2 - expected)[~fill]
        assert np.abs(error).max() <= 2.75e-5 / 2 + 1e-9
    assert cube.blue.values[cube.blue.values > 0].min() < 7273  # negative reflectance has survived
    assert cube.qa_pixel.dtype == "uint16"
    np.testing.assert_array_equal(cube.qa_pixel.values == 1, data["pixel_qa"][:, 3:62:3, 2:64:3] == 0)


def test_flanders_landsat_items_are_read_by_the_rules_of_the_default_catalogue(flanders) -> None:
    made, server = flanders
    product = profiles.PROFILES[made.profile].product("landsat8")
    found = items(server, "landsat-c2-l2")
    for item in found:
        rule = radiometry(item.to_dict(), product)
        assert (rule.scale, rule.offset, rule.nodata) == (2.75e-5, -0.2, 0)
    frames = [i for i in found if i.datetime.date().isoformat() in ("2018-06-06", "2018-07-24")]
    assert [(i.properties["landsat:wrs_path"], i.properties["landsat:wrs_row"]) for i in frames] == [
        ("200", "024"), ("200", "025"), ("200", "024"), ("200", "025"),
    ]  # fmt: skip
    others = [i for i in found if i not in frames]
    assert {i.properties["landsat:wrs_path"] for i in others} == {"199"}
    assert len({i.id for i in found}) == 26


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (322, 21824),  # clear land
        (324, 21952),  # water
        (480, 22280),  # cloud of high confidence
        (352, 21762),  # the rim of a cloud
        (328, 23888),  # shadow
        (336, 30048),  # snow
        (1, 1),
        (0, 1),
    ],
)
def test_quality_words_become_those_of_collection_2(old: int, new: int) -> None:
    assert int(real.qa_pixel(np.array([[old]], np.uint16))[0, 0]) == new


def test_cirrus_of_high_confidence_is_kept() -> None:
    (word,) = real.qa_pixel(np.array([834], np.uint16)).tolist()
    assert word & 4
    assert word >> 14 == 3
    assert not word & 8


def test_flanders_sentinel_2_reads_back_exactly(flanders, shared: Path) -> None:
    made, server = flanders
    found = items(server, "sentinel-2-l2a")
    assert len(found) == 118
    fine, coarse = source(shared, "S2_L2A_10m"), source(shared, "S2_L2A_20m")
    ten = GeoBox((64, 64), rasterio.Affine(10, 0, 501_360, 0, -10, 5_629_680), "EPSG:32631")
    # 20 m bands: same pixels, 10 m farther north than the source says
    twenty = GeoBox((32, 32), rasterio.Affine(20, 0, 501_360, 0, -20, 5_629_690), "EPSG:32631")
    cube = load(found, ["B02", "B03", "B04"], ten, made.profile)
    for name in ("B02", "B03", "B04"):
        np.testing.assert_array_equal(cube[name].values, fine[name][:])
    cube = load(found, ["B8A", "B11", "B12", "SCL"], twenty, made.profile)
    for name in ("B8A", "B11", "B12", "SCL"):
        np.testing.assert_array_equal(cube[name].values, coarse[name][:])
    assert cube.SCL.dtype == "uint8"
    product = profiles.PROFILES[made.profile].product("sentinel2")
    for item in found:
        rule = radiometry(item.to_dict(), product)
        assert (rule.scale, rule.offset, rule.nodata) == (1e-4, 0.0, 0)
        assert "raster:bands" not in json.dumps(item.to_dict())


def test_the_20_m_bands_of_flanders_now_lie_on_the_10_m_ones(flanders, shared: Path) -> None:
    """B8A against B08 of the source, which have nearly the same band-pass, on wholly clear days."""
    made, server = flanders
    fine, coarse = source(shared, "S2_L2A_10m"), source(shared, "S2_L2A_20m")
    clear = [k for k in range(118) if np.isin(coarse["SCL"][k], (4, 5)).mean() > 0.97]
    found = [items(server, "sentinel-2-l2a")[k] for k in clear]
    box = GeoBox((31, 32), rasterio.Affine(20, 0, 501_360, 0, -20, 5_629_670), "EPSG:32631")
    cube = load(found, ["B8A"], box, made.profile)
    b08 = fine["B08"][clear].astype(float)

    def correlation(first_row: int) -> float:
        rows = slice(first_row, first_row + 60)
        mean = b08[:, rows, :].reshape(len(clear), 30, 2, 32, 2).mean((2, 4))
        pairs = zip(mean, cube["B8A"].values[:, 1:31].astype(float), strict=True)
        return float(np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs]))

    # row 1 of the loaded box begins at y = 5629650, which is row 3 of the 10 m file
    assert len(clear) >= 10
    assert correlation(3) > 0.985
    assert correlation(3) > max(correlation(2), correlation(4)) + 0.02


def test_platform_orbit_and_path_from_the_time_of_overpass(shared: Path) -> None:
    """Against the names of the recorded products."""
    checked = set()
    for path in sorted((shared / "stac").rglob("*.json")):
        record = json.loads(path.read_text())
        properties = record.get("properties", {}) if isinstance(record, dict) else {}
        product = re.match(r"(S2[AB])_MSIL2A_.*_R(\d{3})_T", properties.get("s2:product_uri", ""))
        scene = re.match(r"LC08_L2SP_(\d{3})", record.get("id", "")) if properties else None
        if product:
            expected = f"sentinel-{product[1][1:].lower()}", int(product[2])
            assert real.sentinel_orbit(datetime.fromisoformat(properties["datetime"])) == expected, path.name
        elif scene:
            assert real.wrs_path(datetime.fromisoformat(properties["datetime"])) == int(scene[1]), path.name
        checked.add("sentinel" if product else "landsat" if scene else "other")
    assert checked == {"sentinel", "landsat", "other"}


def test_flanders_area_lies_inside_every_scene(flanders) -> None:
    made, server = flanders
    area = json.loads(made.aoi.read_text())["geometry"]
    client = pystac_client.Client.open(server.url)
    assert len(list(client.search(intersects=area, limit=100).items())) == 26 + 118
    xs, ys = np.array(area["coordinates"][0]).T
    for item in client.search(limit=100).items():
        west, south, east, north = item.bbox
        assert west < xs.min() < xs.max() < east
        assert south < ys.min() < ys.max() < north


def test_india_bands_and_pan_read_back_exactly(india, shared: Path) -> None:
    made, server = india
    level2, level1 = items(server, "landsat-c2-l2"), items(server, "landsat-c2l1")
    assert [i.id for i in level2] == ["LC08_L2SP_143054_20230213_02_T1", "LC08_L2SP_143054_20230418_02_T1"]
    thirty = GeoBox((177, 174), rasterio.Affine(30, 0, 839_175, 0, -30, 978_975), "EPSG:32643")
    fifteen = GeoBox((352, 347), rasterio.Affine(15, 0, 839_197.5, 0, -15, 978_952.5), "EPSG:32643")
    bands = load(level2, [*BANDS, "qa_pixel"], thirty, made.profile)
    pan = load(level1, ["pan"], fifteen, made.profile)
    for k, item in enumerate(level1):
        with rasterio.open(shared / real.INDIA / f"{item.id}_pan.tif") as file:
            np.testing.assert_array_equal(pan.pan.values[k], file.read(1))
        (path,) = (shared / real.INDIA).glob(f"*L2SP*{item.datetime:%Y%m%d}_*_SR.tif")
        with rasterio.open(path) as file:
            for number, band in enumerate((*BANDS, "qa_pixel"), start=1):
                np.testing.assert_array_equal(bands[band].values[k], file.read(number))
        assert item.properties["landsat:scene_id"] == level2[k].properties["landsat:scene_id"]
        assert (thirty.affine.c % 30, thirty.affine.f % 30, fifteen.affine.c % 15, fifteen.affine.f % 15) == (
            15, 15, 7.5, 7.5,
        )  # fmt: skip
        rule = radiometry(item.to_dict(), profiles.PROFILES["simulated"].product("landsat8_pan"))
        file = made.folder / item.assets["MTL.json"].href.removeprefix(f"{server.url}/")
        mtl = json.loads(file.read_text())["LANDSAT_METADATA_FILE"]
        sine = np.sin(np.radians(float(mtl["IMAGE_ATTRIBUTES"]["SUN_ELEVATION"])))
        mult = float(mtl["LEVEL1_RADIOMETRIC_RESCALING"]["REFLECTANCE_MULT_BAND_8"])
        assert rule.scale == pytest.approx(mult / sine)


def test_india_pan_lies_on_the_bands_only_after_both_went_back_by_half_a_pixel(india, shared: Path) -> None:
    """Share of the variance of pan at the centres of 30 m pixels that blue, green and red explain, by its place."""
    _, server = india
    item = items(server, "landsat-c2l1")[0]
    (path,) = (shared / real.INDIA).glob(f"*L2SP*{item.datetime:%Y%m%d}_*_SR.tif")
    with rasterio.open(path) as file:
        visible = file.read((1, 2, 3)).astype(float)[:, 4:-4, 4:-4]
    with rasterio.Env(**GDAL), rasterio.open(item.assets["pan"].href) as file:
        pan, t = file.read(1).astype(float), file.transform
    rows, columns = np.mgrid[4:173, 4:170]
    x, y = 839_175 + 30 * (columns + 0.5), 978_975 - 30 * (rows + 0.5)
    design = np.stack([*(band.ravel() for band in visible), np.ones(visible[0].size)], axis=1)

    blurred = gaussian_filter(pan, 0.8)  # of the sharpness of the bands

    def explained(east: float, north: float) -> float:
        place = [(t.f + north - y) / 15 - 0.5, (x - t.c - east) / 15 - 0.5]
        seen = map_coordinates(blurred, place, order=3).ravel()
        residual = seen - design @ np.linalg.lstsq(design, seen, rcond=None)[0]
        return float(1 - residual.var() / seen.var())

    steps = (-7.5, 0.0, 7.5)
    found = {(e, n): explained(e, n) for e in steps for n in steps}
    assert max(found, key=found.get) == (0.0, 0.0)
    assert found[0.0, 0.0] > 0.95
    # where the source's own georeference had it, relative to the bands
    assert found[-7.5, 7.5] < found[0.0, 0.0] - 0.03


def test_india_sentinel_2_is_made_up_and_says_so(india) -> None:
    made, server = india
    found = items(server, "sentinel-2-c1-l2a")
    assert len(found) == 2
    client = pystac_client.Client.open(server.url)
    assert all(i.properties["simulated"] is True for i in found)
    assert "SIMULATED" in client.get_collection("sentinel-2-c1-l2a").description
    landsat_items = items(server, "landsat-c2-l2")
    assert not any("simulated" in i.properties for i in landsat_items)
    area = pystac_client.Client.open(server.url).search(intersects=json.loads(made.aoi.read_text())["geometry"])
    assert len(list(area.items())) == 6
    for item, like in zip(found, landsat_items, strict=True):
        with rasterio.Env(**GDAL), rasterio.open(item.assets["red"].href) as file:
            red, transform, crs = file.read(1), file.transform, file.crs
        assert (transform.c % 60, transform.f % 60, crs.to_epsg()) == (0, 0, 32644)
        assert (red > 0).all()
        box = GeoBox(red.shape, transform, crs)
        cube = load([like], ["red"], box, made.profile, "cubic")
        enlarged = cube.red.values[0] * 2.75e-5 - 0.2
        assert np.corrcoef(enlarged.ravel(), (red * 1e-4 - 0.1).ravel())[0, 1] > 0.8
        # it has detail that Landsat, enlarged, has not
        assert np.diff(red.astype(float)).std() / red.std() > 1.2 * np.diff(enlarged).std() / enlarged.std()
