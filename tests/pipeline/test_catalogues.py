"""Every recorded item through its catalogue's profile: the right file for each band, grid, number type and nodata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import odc.stac
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from marstfn.bands import BANDS, PAN
from pipeline import items, profiles, uniform
from pipeline.access import HTTP, SECRETS
from pipeline.errors import CatalogError
from pipeline.products import Product, Role

OLI = ("B2", "B3", "B4", "B5", "B6", "B7")
MSI = ("B02", "B03", "B04", "B8A", "B11", "B12")
ARD = ("band02", "band03", "band04", "band05", "band06", "band07")

# profile, role, item, files of the bands; upper left corner (metres), EPSG, and pixels of 10 m / 30 m of the first band
RECORDED = [
    ("planetary-computer", "landsat8", "planetary-computer/landsat-c2-l2/LC08_L2SP_033032_20241127_02_T1.json",
     OLI, (446085, 4581915, 32613, 30, 7831, 7701)),
    ("planetary-computer", "sentinel2",
     "planetary-computer/sentinel-2-l2a/S2B_MSIL2A_20241203T174629_R098_T13TDE_20241203T211406.json",
     MSI, (399960, 4500000, 32613, 10, 10980, 10980)),
    ("planetary-computer", "sentinel2",
     "planetary-computer/sentinel-2-l2a/S2A_MSIL2A_20200601T080611_R078_T35MNM_20201027T072253.json",
     MSI, (499980, 9200020, 32735, 10, 10980, 10980)),
    ("earth-search", "landsat8", "earth-search-v1/landsat-c2-l2/LC08_L2SP_033032_20231008_02_T1.json",
     OLI, (449085, 4581915, 32613, 30, 7831, 7711)),
    ("earth-search", "sentinel2", "earth-search-v1/sentinel-2-c1-l2a/S2A_T13TDE_20240402T174230_L2A.json",
     MSI, (399960, 4500000, 32613, 10, 10980, 10980)),
    ("usgs", "landsat8", "usgs-landsatlook/landsat-c2l2-sr/LC08_L2SP_028030_20200114_20200824_02_T1_SR.json",
     OLI, (173085, 4904715, 32615, 30, 8041, 7931)),
    ("cdse", "sentinel2",
     "cdse/sentinel-2-l2a/S2C_MSIL2A_20260527T014651_N0512_R017_T55WFR_20260527T042005.json",
     MSI, (600000, 7600020, 32655, 10, 10980, 10980)),
    ("dea", "landsat8", "dea/ga_ls8c_ard/ga_ls8c_ard_3-1-0_088080_2020-05-25_final.json",
     ARD, (526785, -3077085, 32656, 30, 7841, 7781)),
    ("dea", "landsat8_pan", "dea/ga_ls8c_ard/ga_ls8c_ard_3-1-0_088080_2020-05-25_final.json",
     ("band08",), (526792.5, -3077092.5, 32656, 15, 15681, 15561)),
    ("deafrica", "sentinel2", "de-africa/s2_l2a_c1/S2B_T37MGP_20240710T073012_L2A.json",
     MSI, (699960, 9400000, 32737, 10, 10980, 10980)),
]  # fmt: skip
NAMES = [f"{name}-{role}-{path.rsplit('/')[-1][:12]}" for name, role, path, _, _ in RECORDED]

recorded_items = pytest.mark.parametrize(("name", "role", "path", "files", "grid"), RECORDED, ids=NAMES)


def recorded(shared: Path, path: str) -> dict[str, Any]:
    item: dict[str, Any] = json.loads((shared / "stac" / path).read_text())
    # the one recorded item of DEA was taken from the bucket, where it names no collection but as odc:product
    return item if item.get("collection") else {**item, "collection": item["properties"]["odc:product"]}


def through(name: str, role: Role, item: dict[str, Any]) -> tuple[Product, Any]:
    """An item as it is frozen beside a plan and then brought to one form."""
    source = profiles.resolve(name if profiles.PROFILES[name].url else f"{name}@http://127.0.0.1:1")
    product = source.product_of(item, role)
    assert product is not None
    (frozen,) = items.collection([item], source)
    return product, uniform.uniform(frozen, product)


def parsed(product: Product, item: Any) -> Any:
    (out,) = odc.stac.parse_items([item], cfg=uniform.stac_cfg(product))
    return out


@pytest.mark.shared
@recorded_items
def test_recorded_items_lead_to_the_right_files(
    name: str, role: Any, path: str, files: Any, grid: Any, shared: Path
) -> None:
    product, item = through(name, role, recorded(shared, path))
    bands = (PAN,) if role == "landsat8_pan" else BANDS
    for band, file in zip(bands, files, strict=True):
        assert file in item.assets[band].href.rsplit("/", 1)[1], band
    if role != "landsat8_pan":
        mask = item.assets["mask"].href.rsplit("/", 1)[1].lower()
        assert {"sentinel2": "scl", "landsat8": "qa_pixel"}[role] in mask or "fmask" in mask
    assert ("saturation" in item.assets) == (product.family == "landsat-c2-l2")


@pytest.mark.shared
@recorded_items
def test_recorded_items_have_their_true_grid_and_numbers(
    name: str, role: Any, path: str, files: Any, grid: Any, shared: Path
) -> None:
    product, item = through(name, role, recorded(shared, path))
    out = parsed(product, item)
    left, top, epsg, pixel, rows, columns = grid
    first = PAN if role == "landsat8_pan" else "blue"
    assert out[first].geobox == GeoBox((rows, columns), Affine(pixel, 0, left, 0, -pixel, top), f"EPSG:{epsg}")
    number = ("int16", -999) if name == "dea" else ("uint16", 0)
    for band in (PAN,) if role == "landsat8_pan" else BANDS:
        meta = out.collection[band]
        assert (meta.data_type, meta.nodata) == number, band
    if role == "sentinel2":
        assert out["nir08"].geobox.resolution.x == 20
        assert (out.collection["mask"].data_type, out.collection["mask"].nodata) == ("uint8", 0)
    elif role == "landsat8" and name != "dea":
        assert (out.collection["mask"].data_type, out.collection["mask"].nodata) == ("uint16", 1)


@pytest.mark.shared
@recorded_items
def test_recorded_items_load_as_their_own_numbers(
    name: str, role: Any, path: str, files: Any, grid: Any, shared: Path
) -> None:
    """Metadata only: the loaded array, lazy and never read, has the product's type, fill and grid."""
    product, item = through(name, role, recorded(shared, path))
    box = parsed(product, item)[PAN if role == "landsat8_pan" else "blue"].geobox[:600, :600]
    out = odc.stac.load([item], geobox=box, stac_cfg=uniform.stac_cfg(product), chunks={})
    assert set(out.data_vars) == set(item.assets)
    for layer, key in uniform.keys(product).items():
        dtype, nodata = product.numbers(key)
        assert str(out[layer].dtype) == dtype, layer
        assert out[layer].attrs.get("nodata") == nodata, layer
    assert out.odc.geobox == box


@pytest.mark.shared
def test_planetary_computer_sentinel2_would_load_as_float32_without_its_profile(shared: Path) -> None:
    path = RECORDED[1][2]
    item = items.pystac_item(recorded(shared, path))
    (bare,) = odc.stac.parse_items([item], cfg={"*": {"warnings": "ignore"}})
    assert bare.collection["B04"].data_type in (None, "float32")
    assert bare.collection["B04"].nodata is None
    product, alike = through("planetary-computer", "sentinel2", recorded(shared, path))
    assert parsed(product, alike).collection["red"].data_type == "uint16"


@pytest.mark.shared
def test_sentinel_2_l2a_means_other_assets_in_every_catalogue(shared: Path) -> None:
    """The id is the same at Planetary Computer, Copernicus and Earth Search; keys, grids and types are not."""
    found = {
        name: through(name, "sentinel2", recorded(shared, path))
        for name, path in (("planetary-computer", RECORDED[1][2]), ("cdse", RECORDED[6][2]))
    }
    assert {product.collection for product, _ in found.values()} == {"sentinel-2-l2a"}
    assert len({product.assets["red"] for product, _ in found.values()}) == 2
    assert all(set(item.assets) == {*BANDS, "mask"} for _, item in found.values())
    source = profiles.resolve("planetary-computer")
    item = recorded(shared, RECORDED[6][2])
    marked = {**item, "properties": {**item["properties"], "marstfn:catalog": "cdse"}}
    assert source.product_of(marked, "sentinel2") is None, "an item of another catalogue is not ours by its id"


def level1(shared: Path) -> dict[str, Any]:
    """An OLI Level-1 item, built: the recorded Level-2 item's place and time, Level-1's keys as listed in the notes."""
    item = recorded(shared, RECORDED[5][2])
    name = "LC08_L1TP_028030_20200114_20200824_02_T1"
    href = item["assets"]["blue"]["href"].replace("level-2", "level-1").rsplit("/", 2)[0] + f"/{name}/{name}_B8.TIF"
    s3 = "s3://usgs-landsat/" + href.split("/data/", 1)[1]
    return {
        **item, "id": name, "collection": "landsat-c2l1",
        "assets": {"pan": {"href": href, "alternate": {"s3": {"href": s3}}, "eo:bands": [{"name": "B8"}]}},
    }  # fmt: skip


@pytest.mark.shared
def test_usgs_pan_lies_on_its_own_15_m_grid_although_the_item_states_30_m(shared: Path) -> None:
    item = level1(shared)
    (naive,) = odc.stac.parse_items([items.pystac_item(item)], cfg={"*": {"warnings": "ignore"}})
    assert naive["pan"].geobox.resolution.x == 30, "the trap is there"
    product, alike = through("usgs", "landsat8_pan", item)
    box = parsed(product, alike)["pan"].geobox
    assert box == GeoBox((16081, 15861), Affine(15, 0, 173092.5, 0, -15, 4904707.5), "EPSG:32615")
    assert parsed(product, alike).collection["pan"].data_type == "uint16"


@pytest.mark.shared
def test_the_same_rule_gives_the_pan_grid_that_dea_states(shared: Path) -> None:
    item = recorded(shared, RECORDED[8][2])
    product, alike = through("dea", "landsat8_pan", item)
    stated = parsed(product, alike)[PAN].geobox
    fields = uniform._pan_grid(item["properties"], {})
    assert fields["proj:shape"] == list(stated.shape)
    assert fields["proj:transform"] == list(stated.transform)[:6]


@pytest.mark.shared
def test_usgs_is_read_from_the_bucket_and_not_behind_the_login(shared: Path) -> None:
    product, item = through("usgs", "landsat8", recorded(shared, RECORDED[5][2]))
    assert all(asset.href.startswith("s3://usgs-landsat/collection02/") for asset in item.assets.values())
    options = product.access.options
    assert (options["AWS_REQUEST_PAYER"], options["AWS_REGION"]) == ("requester", "us-west-2")
    _, cdse = through("cdse", "sentinel2", recorded(shared, RECORDED[6][2]))
    assert all(asset.href.startswith("s3://eodata/") for asset in cdse.assets.values())


@pytest.mark.shared
def test_mss_level_1_has_no_pan_and_is_told_by_band(shared: Path) -> None:
    item = recorded(shared, "usgs-landsatlook/landsat-c2l1/LM02_L1GS_001004_19750411_20200908_02_T2.json")
    product = profiles.PROFILES["usgs"].product("landsat8_pan")
    assert product is not None
    with pytest.raises(CatalogError, match=r"item LM02_L1GS_001004_19750411_20200908_02_T2 has no asset 'pan'"):
        uniform.uniform(items.pystac_item(item), product, [PAN])


@pytest.mark.shared
def test_earth_search_landsat_pays_and_its_sentinel_2_is_unsigned() -> None:
    profile = profiles.PROFILES["earth-search"]
    landsat, sentinel = profile.product("landsat8"), profile.product("sentinel2")
    assert landsat is not None
    assert sentinel is not None
    assert landsat.access.options["AWS_REQUEST_PAYER"] == "requester"
    assert "AWS_REQUEST_PAYER" not in sentinel.access.options
    assert sentinel.access.options["AWS_NO_SIGN_REQUEST"] == "YES"


def test_every_profile_retries_http_and_holds_no_secret() -> None:
    for profile in profiles.PROFILES.values():
        for product in profile.products:
            options = product.access.options
            assert HTTP.items() <= options.items()
            assert "GDAL_HTTP_RETRY_CODES" not in options, "GDAL reads every 0 in it as: no answer"
            assert options["GDAL_DISABLE_READDIR_ON_OPEN"] == "EMPTY_DIR"
            assert not set(options) & set(SECRETS)
            assert set(product.access.keys) <= set(SECRETS)
