"""Scale and offset of recorded items of every catalogue, by the first rule that matches."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest

from pipeline import mtl, overrides, profiles
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


DEA_KEYS = dict(
    zip(
        ("blue", "green", "red", "nir08", "swir16", "swir22"),
        ("nbart_blue", "nbart_green", "nbart_red", "nbart_nir", "nbart_swir_1", "nbart_swir_2"),
        strict=True,
    )
)
DEA = Product("landsat8", "ga_ls8c_ard_3", DEA_KEYS, family="dea-ard")
DEA_PAN = Product("landsat8_pan", "ga_ls8c_ard_3", {"pan": "nbart_panchromatic"}, family="dea-ard")
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


def override(*texts: str) -> tuple[overrides.Override, ...]:
    return overrides.parse_all(texts)


@pytest.mark.shared
def test_the_nbar_of_digital_earth_australia_has_a_scale_and_nodata_of_its_own(shared: Path) -> None:
    item = recorded(shared, "dea/ga_ls8c_ard/ga_ls8c_ard_3-1-0_088080_2020-05-25_final")
    for product in (DEA, DEA_PAN):
        found = radiometry(item, product)
        assert (found.scale, found.offset, found.nodata) == (1e-4, 0.0, -999)
        assert "NBAR" in found.rule


def test_landsat_9_has_the_scale_of_landsat_8() -> None:
    item = bare(**{"landsat:collection_number": "02", "platform": "LANDSAT_9", "view:sun_elevation": 30.0})
    found = radiometry(item, LANDSAT)
    assert (found.scale, found.offset, found.nodata) == (2.75e-5, -0.2, 0)
    assert radiometry(item, PAN).scale == pytest.approx(2e-5 / 0.5)


@pytest.mark.shared
def test_the_groups_of_a_metadata_file_are_never_merged(shared: Path) -> None:
    """REFLECTANCE_MULT_BAND_4 stands in it twice."""
    name = "usgs-landsatlook/mtl/LC08_L2SP_008059_20191201_20200825_02_T1_MTL.json"
    found = mtl.parse((shared / "stac" / name).read_bytes())
    assert found.surface == (2.75e-5, -0.2)
    assert found.number("LEVEL1_RADIOMETRIC_RESCALING", "REFLECTANCE_MULT_BAND_4") == 2e-5
    assert found.pan == (2e-5, -0.1)
    assert found.sun_elevation == 57.08727307
    assert found.level1 == "LC08_L1TP_008059_20191201_20200825_02_T1"
    assert not found.pan_saturated
    assert found.value("IMAGE_ATTRIBUTES", "NO_SUCH_KEY") is None
    # an item that says nothing of collection or sun is told by its file
    told = radiometry(bare(), PAN, mtl=found)
    assert told.scale == pytest.approx(2e-5 / math.sin(math.radians(57.08727307)))
    assert "in the MTL" in told.rule


def metadata(mult: str = "2.5E-05", add: str = "-0.2") -> mtl.Metadata:
    level1 = {"REFLECTANCE_MULT_BAND_8": mult, "REFLECTANCE_ADD_BAND_8": add}
    return mtl.parse(json.dumps({"LANDSAT_METADATA_FILE": {"LEVEL1_RADIOMETRIC_RESCALING": level1}}))


def test_pan_goes_by_the_item_then_the_metadata_file_then_the_constants() -> None:
    item = bare(**{"landsat:collection_number": "02", "view:sun_elevation": 30.0})
    assert radiometry(item, PAN).scale == pytest.approx(4e-5)
    found = radiometry(item, PAN, mtl=metadata())
    assert (found.scale, found.offset) == (pytest.approx(5e-5), pytest.approx(-0.4))
    item["assets"] = {"pan": {"href": "x", "raster:bands": [{"scale": 1e-5, "offset": -0.05, "nodata": 0}]}}
    assert radiometry(item, PAN, mtl=metadata()).scale == pytest.approx(2e-5)


def test_a_metadata_file_that_is_none_is_refused() -> None:
    for text in ("GROUP = L1_METADATA_FILE", "{}", '{"LANDSAT_METADATA_FILE": [1]}'):
        with pytest.raises(CatalogError, match="give MTL"):
            mtl.parse(text)
    with pytest.raises(CatalogError, match="REFLECTANCE_MULT_BAND_8 = 'x' is not a number"):
        _ = metadata(mult="x").pan


def test_earth_search_v0_is_ambiguous_from_baseline_04_on_unless_its_flag_says() -> None:
    old = {"sentinel:product_id": "S2A_MSIL2A_20220210T0_N0400_R1_T2_3"}
    assert radiometry(bare(**old, **{"sentinel:boa_offset_applied": True}), ES_S2).offset == 0.0
    assert radiometry(bare(**old, **{"sentinel:boa_offset_applied": False}), ES_S2).offset == -0.1
    early = {"sentinel:product_id": "S2A_MSIL2A_20200210T0_N0214_R1_T2_3"}
    assert radiometry(bare(**early), ES_S2).offset == 0.0
    # what its bands state is no help: the flag that is missing would outweigh them
    stated = with_bands(ES_S2)
    stated["properties"] = dict(old)
    with pytest.raises(CatalogError, match="applied the offset to some"):
        radiometry(stated, ES_S2)


def test_a_user_outweighs_the_rule_for_an_item_and_for_a_run() -> None:
    """The flag of S2B_33UXP_20250302_0 says false, and its numbers are 1000 lower already."""
    item = bare(**{"earthsearch:boa_offset_applied": False, "s2:processing_baseline": "05.11"})
    assert radiometry(item, ES_S2).offset == -0.1
    run = override("boa-offset=0")
    both = override("boa-offset=0", "X=0.0001,-0.05")
    found = radiometry(item, ES_S2, overrides=run)
    assert (found.scale, found.offset) == (1e-4, 0.0)
    assert found.rule.startswith("given by the user (boa-offset=0) in place of 0.0001,-0.1: ")
    assert "boa_offset_applied is false" in found.rule
    assert radiometry(item, ES_S2, overrides=both).offset == -0.05
    assert radiometry(item | {"id": "Y"}, ES_S2, overrides=override("X=0.0001,-0.05")).offset == -0.1


def test_the_offset_of_a_run_is_sentinels_alone() -> None:
    landsat = bare(**{"landsat:collection_number": "02", "view:sun_elevation": 30.0})
    run = override("boa-offset=0", "X#pan=0.00003,-0.1")
    assert radiometry(landsat, LANDSAT, overrides=run).offset == -0.2
    assert radiometry(landsat, PAN, overrides=run).scale == 3e-5
    assert radiometry(bare(), DEA, overrides=run).offset == 0.0


def test_a_user_rescues_an_item_that_no_rule_can_tell() -> None:
    found = radiometry(bare(), PC_S2, overrides=override("X=0.0001,-0.1"))
    assert (found.scale, found.offset, found.nodata) == (1e-4, -0.1, 0)
    assert "neither scale and offset nor a processing baseline" in found.rule
    with pytest.raises(CatalogError, match="neither scale"):
        radiometry(bare(), PC_S2, overrides=override("boa-offset=0"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("boa-offset=-0.2", "neither ITEM=SCALE,OFFSET"),
        ("X=1e-4", "neither ITEM=SCALE,OFFSET"),
        ("X=1e-4,", "neither"),
        ("=1e-4,0", "neither"),
        ("X=1e-4,-3", "offset -3 lies outside"),
        ("X=0.5,0", "scale 0.5 lies outside"),
        ("X=1-4,0", "not two numbers"),
    ],
)
def test_an_override_that_is_none_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        overrides.parse(text)


def test_overrides_are_read_back_as_written_and_must_not_contradict() -> None:
    found = override("B=1e-4,0", "boa-offset=-0.1", "A=0.0001,-0.1", "A=1e-4,-1e-1")
    assert [o.text for o in found] == ["A=0.0001,-0.1", "B=0.0001,0.0", "boa-offset=-0.1"]
    assert overrides.parse_all(o.text for o in found) == found
    with pytest.raises(ValueError, match="contradict"):
        override("A=1e-4,0", "A=1e-4,-0.1")
