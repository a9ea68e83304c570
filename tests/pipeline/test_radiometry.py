"""Scale and offset of recorded items of every catalogue, by the first rule that matches."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest

from pipeline import profiles
from pipeline.errors import CatalogError
from pipeline.facts import processing_baseline, sun_elevation
from pipeline.profiles import Product
from pipeline.radiometry import radiometry

PC, ES, SIM = (profiles.PROFILES[name] for name in ("planetary-computer", "earth-search", "simulated"))
PC_S2, ES_S2, LANDSAT, PAN = (
    PC.product("sentinel2"),
    ES.product("sentinel2"),
    PC.product("landsat8"),
    SIM.product("landsat8_pan"),
)


def sentinel(blue: str, green: str, red: str, nir: str, swir1: str, swir2: str) -> Product:
    keys = dict(
        zip(("blue", "green", "red", "nir08", "swir16", "swir22"), (blue, green, red, nir, swir1, swir2), strict=True)
    )
    return Product("sentinel2", "any", keys, family="sentinel-2-l2a")


CDSE = sentinel("B02_10m", "B03_10m", "B04_10m", "B8A_20m", "B11_20m", "B12_20m")

PC_OF_2020 = "sentinel-2-l2a/S2A_MSIL2A_20200601T080611_R078_T35MNM_20201027T072253"
PC_OF_2024 = "sentinel-2-l2a/S2B_MSIL2A_20241203T174629_R098_T13TDE_20241203T211406"
USGS = "landsat-c2l2-sr/LC08_L2SP_028030_20200114_20200824_02_T1_SR"
CDSE_OF_2026 = "sentinel-2-l2a/S2C_MSIL2A_20260527T014651_N0512_R017_T55WFR_20260527T042005"

CASES: dict[str, tuple[Product, float, float, str]] = {
    "planetary-computer/landsat-c2-l2/LC08_L2SP_033032_20241127_02_T1": (LANDSAT, 2.75e-5, -0.2, "of the item"),
    "earth-search-v1/landsat-c2-l2/LC08_L2SP_033032_20231008_02_T1": (LANDSAT, 2.75e-5, -0.2, "of the item"),
    # USGS items state no scale
    f"usgs-landsatlook/{USGS}": (LANDSAT, 2.75e-5, -0.2, "constants"),
    # the flag says applied, although raster:bands states -0.1
    "earth-search-v1/sentinel-2-l2a/S2A_13TDE_20231008_0_L2A": (ES_S2, 1e-4, 0.0, "boa_offset_applied is true"),
    "earth-search-v1/sentinel-2-l2a/S2A_28QCH_20200714_0_L2A": (ES_S2, 1e-4, 0.0, "boa_offset_applied is false"),
    "earth-search-v1/sentinel-2-c1-l2a/S2A_T13TDE_20240402T174230_L2A": (ES_S2, 1e-4, -0.1, "of the item"),
    "de-africa/s2_l2a_c1/S2B_T37MGP_20240710T073012_L2A": (ES_S2, 1e-4, -0.1, "of the item"),
    # STAC 1.1: on the asset
    f"cdse/{CDSE_OF_2026}": (CDSE, 1e-4, -0.1, "of the item"),
    # Planetary Computer states nothing: the baseline decides
    f"planetary-computer/{PC_OF_2020}": (PC_S2, 1e-4, 0.0, "baseline 02.12"),
    f"planetary-computer/{PC_OF_2024}": (PC_S2, 1e-4, -0.1, "baseline 05.11"),
}


def recorded(shared: Path, name: str) -> dict[str, Any]:
    item: dict[str, Any] = json.loads((shared / "stac" / f"{name}.json").read_text())
    return item


@pytest.mark.shared
@pytest.mark.parametrize("name", CASES)
def test_recorded_items(name: str, shared: Path) -> None:
    product, scale, offset, words = CASES[name]
    found = radiometry(recorded(shared, name), product)
    assert (found.scale, found.offset, found.nodata) == (pytest.approx(scale), pytest.approx(offset), 0)
    assert words in found.rule


def bare(**properties: Any) -> dict[str, Any]:
    return {"id": "X", "properties": properties, "assets": {}}


@pytest.mark.parametrize(
    ("baseline", "offset"),
    [("03.01", 0.0), ("03.99", 0.0), ("04.00", -0.1), ("05.00", -0.1), ("05.11", -0.1), ("2.14", 0.0)],
)
def test_without_values_the_baseline_decides(baseline: str, offset: float) -> None:
    assert radiometry(bare(**{"s2:processing_baseline": baseline}), PC_S2).offset == offset


def test_the_baseline_is_read_from_the_product_name_where_no_property_has_it() -> None:
    item = bare(**{"s2:product_uri": "S2A_MSIL2A_20231008T175231_N0509_R141_T13TDE_20231008T233154.SAFE"})
    assert processing_baseline(item) == (5, 9)
    assert radiometry(item, PC_S2).offset == -0.1


def test_the_sensing_date_decides_nothing() -> None:
    old = bare(**{"s2:processing_baseline": "05.00", "datetime": "2016-05-01T00:00:00Z"})
    assert radiometry(old, PC_S2).offset == -0.1


@pytest.mark.parametrize(
    ("item", "product", "words"),
    [
        (bare(), PC_S2, "neither scale and offset nor a processing baseline"),
        (bare(**{"sentinel:product_id": "S2A_MSIL2A_20220210T0_N0400_R1_T2_3"}), PC_S2, "applied the offset to some"),
        (bare(**{"landsat:collection_number": "01"}), LANDSAT, "collection_number is not 02"),
        (bare(), LANDSAT, "collection_number is not 02"),
        (bare(**{"landsat:collection_number": "02", "view:sun_elevation": -49.97}), PAN, "no daylight"),
        (bare(**{"landsat:collection_number": "02"}), PAN, "no daylight"),
        (bare(**{"view:sun_elevation": 40.0}), PAN, "collection_number is not 02"),
    ],
)
def test_what_cannot_be_told_is_refused_by_name(item: dict[str, Any], product: Product, words: str) -> None:
    with pytest.raises(CatalogError, match=words) as caught:
        radiometry(item, product)
    assert "item X" in str(caught.value)


def with_bands(product: Product, **of_red: Any) -> dict[str, Any]:
    band = {"scale": 1e-4, "offset": -0.1, "nodata": 0}
    item = bare()
    item["assets"] = {key: {"href": key, "raster:bands": [dict(band)]} for key in product.assets.values()}
    item["assets"][product.assets["red"]]["raster:bands"][0].update(of_red)
    return item


def test_bands_that_disagree_are_refused() -> None:
    assert radiometry(with_bands(ES_S2), ES_S2).offset == -0.1
    with pytest.raises(CatalogError, match="bands state different"):
        radiometry(with_bands(ES_S2, offset=-0.7), ES_S2)
    partial = with_bands(ES_S2)
    del partial["assets"]["red"]["raster:bands"]
    with pytest.raises(CatalogError, match="bands state different"):
        radiometry(partial, ES_S2)


def test_landsat_of_another_scale_is_refused() -> None:
    item = with_bands(LANDSAT)
    with pytest.raises(CatalogError, match="not those of Collection 2"):
        radiometry(item, LANDSAT)


def test_pan_is_top_of_atmosphere_reflectance_by_the_sun() -> None:
    item = bare(**{"landsat:collection_number": "02", "view:sun_elevation": 57.08727307})
    found = radiometry(item, PAN)
    # rho = (2e-5 DN - 0.1) / sin(elevation)
    assert 20_000 * found.scale + found.offset == pytest.approx(0.3 / math.sin(math.radians(57.08727307)))
    assert "57.0873" in found.rule


@pytest.mark.shared
def test_pan_constants_are_those_of_a_real_metadata_file(shared: Path) -> None:
    name = "usgs-landsatlook/mtl/LC08_L2SP_008059_20191201_20200825_02_T1_MTL.json"
    text = (shared / "stac" / name).read_text()
    level1 = json.loads(text)["LANDSAT_METADATA_FILE"]["LEVEL1_RADIOMETRIC_RESCALING"]
    sun = float(json.loads(text)["LANDSAT_METADATA_FILE"]["IMAGE_ATTRIBUTES"]["SUN_ELEVATION"])
    found = radiometry(bare(**{"landsat:collection_number": "02", "view:sun_elevation": sun}), PAN)
    sine = math.sin(math.radians(sun))
    assert found.scale * sine == pytest.approx(float(level1["REFLECTANCE_MULT_BAND_8"]))
    assert found.offset * sine == pytest.approx(float(level1["REFLECTANCE_ADD_BAND_8"]))


def test_sun_elevation_in_both_spellings() -> None:
    assert sun_elevation(bare(**{"view:sun_elevation": 12.5})) == 12.5
    assert sun_elevation(bare(**{"s2:mean_solar_zenith": 63.9})) == pytest.approx(26.1)
    assert sun_elevation(bare()) is None


def test_the_item_is_left_as_it_was() -> None:
    item = with_bands(ES_S2)
    before = copy.deepcopy(item)
    radiometry(item, ES_S2)
    assert item == before
