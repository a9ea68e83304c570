"""From items to scenes: what is left out and why, twins and strips, pan, mosaics, solar days."""

from __future__ import annotations

import copy
import dataclasses
import json
import random
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import odc.stac
import pytest
import shapely

from pipeline import overrides, profiles, scenes
from pipeline.errors import CatalogError
from pipeline.facts import datatake, mgrs_tile, platform, zone
from pipeline.items import collection as items_of
from pipeline.scenes import Chosen, Wanted
from pipeline.uniform import stac_cfg, uniform

AREA = shapely.box(119.6, 49.1, 119.7, 49.2)
AROUND = shapely.geometry.mapping(shapely.box(118.5, 48.5, 120.5, 49.8))
SIMULATED = profiles.resolve("simulated@http://127.0.0.1:1")
PC = profiles.resolve("planetary-computer")
SCALES = {"sentinel2": (1e-4, -0.1), "landsat8": (2.75e-5, -0.2)}


def assets(role: Any) -> dict[str, Any]:
    product = SIMULATED.profile.product(role)
    assert product is not None
    found: dict[str, Any] = {key: {"href": f"http://127.0.0.1:1/{key}.tif"} for key in product.keys}
    if role in SCALES:
        scale, offset = SCALES[role]
        for key in product.assets.values():
            found[key]["raster:bands"] = [{"scale": scale, "offset": offset, "nodata": 0}]
    return found


def sentinel(
    tile: str = "50UQV",
    moment: str = "2024-05-03T02:55:31Z",
    *,
    unit: str = "2A",
    made: str = "20240503T080000",
    baseline: str = "05.10",
    strip: str = "20240503T025530",
    cloud: float = 10.0,
    epsg: int = 32650,
    **properties: Any,
) -> dict[str, Any]:
    start = moment.replace("-", "").replace(":", "")[:15]
    dotless = baseline.replace(".", "")
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": f"S{unit}_T{tile}_{start}_{made}_L2A",
        "collection": "sentinel-2-c1-l2a",
        "geometry": AROUND,
        "properties": {
            "datetime": moment,
            "platform": f"sentinel-{unit.lower()}",
            "grid:code": f"MGRS-{tile}",
            "proj:epsg": epsg,
            "eo:cloud_cover": cloud,
            "view:sun_elevation": 50.0,
            "s2:processing_baseline": baseline,
            "s2:generation_time": f"{made[:4]}-{made[4:6]}-{made[6:8]}T{made[9:11]}:{made[11:13]}:{made[13:15]}Z",
            "s2:datatake_id": f"GS{unit}_{start}_045855_N{baseline}",
            "s2:datastrip_id": f"S{unit}_OPER_MSI_L2A_DS_2APS_{made}_S{strip}_N{baseline}",
            "s2:product_uri": f"S{unit}_MSIL2A_{start}_N{dotless}_R098_T{tile}_{made}.SAFE",
            **properties,
        },
        "assets": assets("sentinel2"),
    }


def landsat(
    row: int = 26, moment: str = "2024-05-01T02:40:10Z", *, path: int = 123, tier: str = "T1", **properties: Any
) -> dict[str, Any]:
    day = moment[:10].replace("-", "")
    year_day = datetime.fromisoformat(moment.replace("Z", "+00:00")).strftime("%Y%j")
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": f"LC08_L2SP_{path:03}{row:03}_{day}_02_{tier}",
        "collection": "landsat-c2-l2",
        "geometry": AROUND,
        "properties": {
            "datetime": moment,
            "platform": "landsat-8",
            "proj:epsg": 32650,
            "eo:cloud_cover": 10.0,
            "view:sun_elevation": 50.0,
            "landsat:wrs_path": f"{path:03}",
            "landsat:wrs_row": f"{row:03}",
            "landsat:scene_id": f"LC8{path:03}{row:03}{year_day}LGN00",
            "landsat:collection_category": tier,
            "landsat:collection_number": "02",
            **properties,
        },
        "assets": assets("landsat8"),
    }


def pan(of: dict[str, Any], made: str = "20240515", *, tier: str = "T1", **properties: Any) -> dict[str, Any]:
    item = copy.deepcopy(of)
    day = of["properties"]["datetime"][:10].replace("-", "")
    path, row = of["properties"]["landsat:wrs_path"], of["properties"]["landsat:wrs_row"]
    item["id"] = f"LC08_L1TP_{path}{row}_{day}_{made}_02_{tier}"
    item["collection"] = "landsat-c2l1"
    item["properties"] |= {"platform": "LANDSAT_8", "landsat:collection_category": tier, **properties}
    item["assets"] = assets("landsat8_pan")
    return item


def choose(*items: dict[str, Any], source: profiles.Source = SIMULATED, **wanted: Any) -> Chosen:
    found: dict[Any, list[dict[str, Any]]] = {p.role: [] for p in source.profile.products}
    for item in items:
        product = source.profile.product_of(item["collection"])
        assert product is not None
        found[product.role].append(item)
    fields = {"area": AREA, "first": date(2024, 1, 1), "last": date(2024, 12, 31), "epsg": 32650, **wanted}
    return scenes.choose(found, source, Wanted(**fields))


def why(chosen: Chosen, item: dict[str, Any]) -> str:
    (reason,) = [d.why for d in chosen.dropped if d.item == item["id"]]
    return reason


# ---- what is left out


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (landsat(platform="LANDSAT_9"), "platform landsat-9: only landsat-8 is used"),
        (landsat(platform="landsat-7"), "platform landsat-7"),
        (landsat(tier="T2"), "tier T2"),
        (landsat(tier="RT"), "tier RT"),
        (landsat(**{"view:sun_elevation": -2.5}), "sun elevation -2.5 degrees: a night scene"),
        (sentinel(cloud=80.1), "cloud cover 80 % is more than the limit of 80 %"),
        (landsat(platform=None), "platform none"),
    ],
)
def test_an_item_that_cannot_serve_is_dropped_with_the_reason(item: dict[str, Any], reason: str) -> None:
    chosen = choose(item, sentinel("51UWQ"), max_cloud=80.0)
    assert why(chosen, item).startswith(reason)
    assert item["id"] not in {i for s in chosen.scenes for i in s.items}


def test_an_item_without_an_asset_that_is_needed_is_dropped_by_name() -> None:
    item = landsat()
    del item["assets"]["swir22"], item["assets"]["qa_pixel"]
    assert why(choose(item), item) == "no asset swir22, qa_pixel"


def test_an_item_of_unknown_radiometry_is_dropped_with_the_rule_that_failed() -> None:
    item = sentinel()
    for asset in item["assets"].values():
        asset.pop("raster:bands", None)
    del item["properties"]["s2:processing_baseline"], item["properties"]["s2:product_uri"]
    assert "neither scale and offset nor a processing baseline" in why(choose(item), item)


@pytest.mark.parametrize(
    "spoilt",
    [
        {"properties": None},
        {"assets": None},
        {"assets": []},
        {"properties": {"datetime": "yesterday"}},
        {"properties": {"datetime": None}},
    ],
)
def test_one_item_that_cannot_be_read_costs_itself_and_not_the_year(spoilt: dict[str, Any]) -> None:
    good, bad = sentinel(), {**sentinel(), "id": "spoilt", **spoilt}
    chosen = choose(good, bad)
    assert [s.items for s in chosen.scenes] == [(good["id"],)]
    assert "its metadata cannot be read" in why(chosen, bad)


def test_what_lies_off_the_area_or_the_days_is_no_news() -> None:
    away = {**landsat(), "geometry": shapely.geometry.mapping(shapely.box(0, 0, 1, 1))}
    early = landsat(moment="2023-12-31T02:40:10Z")
    # 2023-12-31 17:00 UTC is the first solar morning of 2024 at 119.65 E
    first = landsat(moment="2023-12-31T17:00:00Z", path=124)
    chosen = choose(away, early, first)
    assert [s.day for s in chosen.scenes] == [date(2024, 1, 1)]
    assert chosen.dropped == ()


def test_a_footprint_that_is_no_valid_polygon_is_not_held_against_an_item() -> None:
    bow = {"type": "Polygon", "coordinates": [[[119, 49], [120, 50], [120, 49], [119, 50], [119, 49]]]}
    area = shapely.box(119.8, 49.3, 119.9, 49.4)
    assert len(choose({**landsat(), "geometry": bow}, area=area).scenes) == 1


@pytest.mark.parametrize("geometry", [None, {"type": "Polygon", "coordinates": "broken"}])
def test_an_item_without_a_footprint_is_left_out_with_a_reason(geometry: dict[str, Any] | None) -> None:
    item = {**landsat(), "geometry": geometry}
    chosen = choose(item, area=shapely.box(119.8, 49.3, 119.9, 49.4))
    assert chosen.scenes == ()
    assert "footprint" in why(chosen, item)


# ---- items that a catalogue spells so that nothing can be read


def test_an_item_of_stac_0_7_without_projection_information_is_left_out_with_the_reason() -> None:
    old, good = landsat(), landsat(27)
    old["stac_version"] = "0.7.0"
    del old["properties"]["proj:epsg"]
    chosen = choose(old, good, sentinel())
    assert why(chosen, old).startswith("no projection information (proj:epsg, proj:code")
    assert {i["id"] for i in chosen.items if "LC08" in i["id"]} == {good["id"]}


def test_projection_information_on_assets_only_is_enough() -> None:
    item = sentinel()
    del item["properties"]["proj:epsg"]
    for asset in item["assets"].values():
        asset["proj:code"] = "EPSG:32650"
    assert choose(item).dropped == ()
    del item["assets"]["scl"]["proj:code"]
    assert "no projection information" in why(choose(item), item)


def test_relative_hrefs_need_a_self_link() -> None:
    item = sentinel()
    item["assets"]["red"]["href"] = "./B04.tif"
    assert why(choose(item), item) == "relative address of asset red, and no self link that says where it begins"
    item["links"] = [{"rel": "self", "href": "https://h/items/x.json"}]
    assert choose(item).dropped == ()


def test_an_item_of_1_0_0_beta_2_whose_bands_are_numbers_is_read_all_the_same() -> None:
    """odc-stac stops at such eo:bands; here they are never looked at."""
    item = landsat()
    item["stac_version"] = "1.0.0-beta.2"
    item["stac_extensions"] = ["eo", "projection"]
    for number, asset in enumerate(item["assets"].values()):
        asset["eo:bands"] = [number]
    (frozen,) = items_of(choose(item).items, SIMULATED)
    with pytest.raises(AttributeError):
        list(odc.stac.parse_items([frozen]))
    product = SIMULATED.product("landsat8")
    assert product is not None
    (parsed,) = odc.stac.parse_items([uniform(frozen, product)], cfg=stac_cfg(product))
    assert parsed.collection["blue"].data_type == "uint16"


# ---- twins


def test_of_reprocessed_twins_the_newest_baseline_then_the_newest_generation_is_used() -> None:
    old = sentinel(baseline="02.12", made="20201027T072253")
    new = sentinel(baseline="05.00", made="20230508T000000")
    again = sentinel(baseline="05.00", made="20230509T000000")
    items = [old, new, again]
    for seed in range(6):
        random.Random(seed).shuffle(items)
        chosen = choose(*items)
        assert [s.items for s in chosen.scenes] == [(again["id"],)]
        assert why(chosen, old) == f"same data as {again['id']}, which is the newer processing"
        assert why(chosen, new) == why(chosen, old)
        assert set(chosen.radiometry) == {again["id"]}


def test_two_strips_of_one_tile_are_not_twins() -> None:
    one = sentinel(strip="20240503T025530", made="20240503T080000")
    two = sentinel(strip="20240503T025512", made="20240503T081500")
    chosen = choose(one, two)
    assert set(chosen.scenes[0].items) == {one["id"], two["id"]}
    assert chosen.dropped == ()


def test_neighbours_of_one_pass_that_name_no_tile_are_not_twins() -> None:
    one, two = sentinel("50UQV"), sentinel("50UQU")
    for number, item in enumerate((one, two)):
        for key in ("grid:code", "s2:product_uri", "s2:datastrip_id"):
            del item["properties"][key]
        item["id"] = f"scene-{number}"
    assert set(choose(one, two).scenes[0].items) == {"scene-0", "scene-1"}


def test_twins_as_planetary_computer_spells_them() -> None:
    def pc(stamp: str) -> dict[str, Any]:
        item = sentinel(made=stamp)
        item["id"] = f"S2A_MSIL2A_20240503T025531_R098_T50UQV_{stamp}"
        item["collection"] = "sentinel-2-l2a"
        del item["properties"]["grid:code"]
        item["properties"] |= {"platform": "Sentinel-2A", "s2:mgrs_tile": "50UQV"}
        item["assets"] = {k: {"href": f"https://h/{k}"} for k in ("B02", "B03", "B04", "B8A", "B11", "B12", "SCL")}
        return item

    old, new = pc("20240504T000250"), pc("20240504T001753")
    chosen = choose(new, old, source=PC)
    assert [s.items for s in chosen.scenes] == [(new["id"],)]
    assert chosen.radiometry[new["id"]].rule == "processing baseline 05.10"
    assert chosen.scenes[0].platform == "sentinel-2a"


def test_of_landsat_processings_the_newest_is_used() -> None:
    old, new = landsat(), landsat()
    old["id"] = "LC08_L2SP_123026_20240501_20240502_02_T1_SR"
    new["id"] = "LC08_L2SP_123026_20240501_20240512_02_T1_SR"
    chosen = choose(new, old)
    assert [s.items for s in chosen.scenes] == [(new["id"],)]
    assert "newer processing" in why(chosen, old)


# ---- pan


def test_pan_is_matched_by_scene_id_else_by_path_row_and_date() -> None:
    one, two, three = landsat(26), landsat(27, "2024-05-01T02:40:34Z"), landsat(26, "2024-05-17T02:40:10Z")
    by_id = pan(one)
    by_place = pan(two, **{"landsat:scene_id": None})
    stray = pan(landsat(25, "2024-05-01T02:39:46Z"))
    chosen = choose(one, two, three, by_id, by_place, stray)
    first, last = chosen.scenes
    assert set(zip(first.items, first.pan_items, strict=True)) == {
        (one["id"], by_id["id"]),
        (two["id"], by_place["id"]),
    }
    assert last.pan_items == ()
    assert why(chosen, stray) == "no Level-2 item of the same acquisition is used"
    assert f"{by_id['id']}#pan" in chosen.radiometry
    assert f"{stray['id']}#pan" not in chosen.radiometry
    assert {i["id"] for i in chosen.items} == {i["id"] for i in (one, two, three, by_id, by_place)}


def test_pan_of_the_newest_processing_and_never_of_another_tier() -> None:
    base = landsat()
    old, new, real_time = pan(base, "20240502"), pan(base, "20240512"), pan(base, "20240513", tier="RT")
    chosen = choose(base, real_time, old, new)
    assert chosen.scenes[0].pan_items == (new["id"],)
    assert why(chosen, real_time).startswith("tier RT")


def test_pan_of_a_night_scene_is_not_used() -> None:
    base = landsat()
    night = pan(base, **{"view:sun_elevation": -49.97})
    chosen = choose(base, night)
    assert chosen.scenes[0].pan_items == ()
    assert "night" in why(chosen, night)


# ---- scenes


def test_items_of_a_day_are_one_scene_and_scenes_are_in_order_of_time() -> None:
    s1, s2 = sentinel("50UQV"), sentinel("50UQU", "2024-05-03T02:55:45Z")
    later = sentinel("50UQV", "2024-05-08T02:55:31Z", unit="2B")
    l1, l2 = landsat(26), landsat(27, "2024-05-01T02:40:34Z")
    items = [later, l2, s2, l1, s1]
    for seed in range(5):
        random.Random(seed).shuffle(items)
        chosen = choose(*items)
        assert [(s.sensor, s.day.isoformat(), s.platform) for s in chosen.scenes] == [
            ("landsat8", "2024-05-01", "landsat-8"),
            ("sentinel2", "2024-05-03", "sentinel-2a"),
            ("sentinel2", "2024-05-08", "sentinel-2b"),
        ]
        assert chosen.scenes[0].time == datetime(2024, 5, 1, 2, 40, 10, tzinfo=UTC)
        assert chosen.scenes[0].items == (l1["id"], l2["id"])
        assert set(chosen.scenes[1].items) == {s1["id"], s2["id"]}


def test_a_mosaic_begins_with_the_clearer_pass_then_the_cubes_own_zone_then_the_clearer_item() -> None:
    # one pass cloudy, one clear; tiles of zones 50 and 51 overlap at 120 E
    cloudy = sentinel("50UQV", "2024-05-03T02:55:31Z", cloud=60)
    clear51 = sentinel("51UWQ", "2024-05-03T03:05:31Z", unit="2B", cloud=1, epsg=32651)
    clear50 = sentinel("50UQV", "2024-05-03T03:05:31Z", unit="2B", cloud=9)
    clear50b = sentinel("50UQU", "2024-05-03T03:05:31Z", unit="2B", cloud=5)
    chosen = choose(cloudy, clear51, clear50, clear50b)
    assert chosen.scenes[0].items == tuple(i["id"] for i in (clear50b, clear50, clear51, cloudy))
    assert chosen.scenes[0].platform == "sentinel-2a+sentinel-2b"
    assert chosen.scenes[0].time == datetime(2024, 5, 3, 2, 55, 31, tzinfo=UTC)


def test_two_sensors_at_one_moment_still_have_two_times() -> None:
    chosen = choose(landsat(moment="2024-05-03T02:55:31Z"), sentinel(moment="2024-05-03T02:55:31Z"))
    times = [s.time for s in chosen.scenes]
    assert times[0] < times[1]
    assert (times[1] - times[0]).total_seconds() == pytest.approx(0.001)


def test_ids_shared_by_two_collections_are_refused() -> None:
    one = landsat()
    two = pan(one)
    two["id"] = one["id"]
    with pytest.raises(CatalogError, match=f"item id {one['id']} is used by the collections"):
        choose(one, two)


# ---- duplicates, strips and mosaics


def earth_search(sequence: int, *, strip: str, made: str, geometry: Any = AROUND) -> dict[str, Any]:
    """Two items of one tile and day as Earth Search numbers them: S2A_50UQV_20240503_0_L2A, ..._1_L2A."""
    item = {**sentinel(strip=strip, made=made), "id": f"S2A_50UQV_20240503_{sequence}_L2A", "geometry": geometry}
    item["properties"]["s2:sequence"] = str(sequence)
    return item


def test_earth_search_0_and_1_of_two_data_strips_are_both_used() -> None:
    zero = earth_search(0, strip="20240503T025512", made="20240503T080000")
    one = earth_search(1, strip="20240503T025530", made="20240503T080000")
    chosen = choose(zero, one)
    assert set(chosen.scenes[0].items) == {zero["id"], one["id"]}
    assert chosen.dropped == ()


def test_earth_search_0_and_1_of_one_data_strip_are_a_reprocessing() -> None:
    zero = earth_search(0, strip="20240503T025530", made="20240503T080000")
    one = earth_search(1, strip="20240503T025530", made="20240504T101500")
    chosen = choose(one, zero)
    assert chosen.scenes[0].items == (one["id"],)
    assert why(chosen, zero) == f"same data as {one['id']}, which is the newer processing"


@pytest.mark.parametrize(("boundary", "both"), [(49.15, True), (48.6, False)])
def test_earth_search_0_and_1_without_a_data_strip_are_told_apart_by_their_ground(boundary: float, both: bool) -> None:
    north = shapely.geometry.mapping(shapely.box(118.5, boundary - 0.05, 120.5, 49.8))
    south = shapely.geometry.mapping(shapely.box(118.5, 48.5, 120.5, 49.15 if both else 49.8))
    zero = earth_search(0, strip="", made="20240503T080000", geometry=north)
    one = earth_search(1, strip="", made="20240504T101500", geometry=south)
    for item in (zero, one):
        del item["properties"]["s2:datastrip_id"]
    chosen = choose(zero, one)
    assert set(chosen.scenes[0].items) == ({zero["id"], one["id"]} if both else {one["id"]})
    assert len(chosen.dropped) == (0 if both else 1)


(ENDPOINT,) = SIMULATED.endpoints
TWO_COLLECTIONS = profiles.Source(
    (
        dataclasses.replace(
            ENDPOINT,
            profile=dataclasses.replace(
                ENDPOINT.profile,
                products=(
                    *ENDPOINT.profile.products,
                    dataclasses.replace(ENDPOINT.profile.of("sentinel2")[0], collection="sentinel-2-l2a"),
                ),
            ),
        ),
    )
)


def test_collections_are_never_mixed_in_one_pass() -> None:
    """sentinel-2-l2a and c1 of one acquisition differ by 1000 digital numbers; c1 has the whole pass here."""
    c1 = [sentinel(tile, f"2024-05-03T02:55:{k}1Z") for k, tile in enumerate(("50UQV", "50UQU"), 1)]
    l2a = {**sentinel("51UWQ", "2024-05-03T02:55:31Z"), "collection": "sentinel-2-l2a"}
    for item in (*c1, l2a):
        item["properties"]["s2:datatake_id"] = "GS2A_20240503T025531_045855_N05.10"
    another = {**sentinel("50UQV", "2024-05-08T02:55:31Z", unit="2B"), "collection": "sentinel-2-l2a"}
    chosen = choose(l2a, *c1, another, source=TWO_COLLECTIONS)
    assert set(chosen.scenes[0].items) == {i["id"] for i in c1}
    assert chosen.scenes[1].items == (another["id"],), "of another pass it is all there is"
    assert why(chosen, l2a) == (
        "collection sentinel-2-l2a: this pass is taken from sentinel-2-c1-l2a, and collections are never mixed in one "
        "pass"
    )


def test_rows_that_overlap_on_one_solar_day_are_one_mosaic() -> None:
    rows = [landsat(26), landsat(27, "2024-05-01T02:40:34Z")]
    (scene,) = choose(*rows).scenes
    assert set(scene.items) == {r["id"] for r in rows}


def test_tiles_of_three_utm_zones_are_one_scene_the_cubes_own_zone_on_top() -> None:
    """As recorded over Colorado on 2024-08-20: one pass in zones 12, 13 and 14."""
    tiles = [
        sentinel(tile, cloud=cloud, epsg=epsg, **{"s2:datatake_id": "GS2A_20240503T025531_045855_N05.10"})
        for tile, cloud, epsg in (("12SYJ", 0.0, 32612), ("13SBD", 30.0, 32613), ("14SKJ", 5.0, 32614))
    ]
    (scene,) = choose(*tiles, epsg=32613).scenes
    assert scene.items == tuple(tiles[k]["id"] for k in (1, 0, 2))


def test_landsat_counts_zones_north_where_sentinel2_counts_them_south() -> None:
    """Landsat of the southern hemisphere: EPSG:326xx with negative northings; the same zone, not another."""
    own, other = landsat(80, **{"proj:epsg": 32656}), landsat(81, "2024-05-01T02:40:34Z", **{"proj:epsg": 32655})
    assert (zone(own), zone(sentinel(epsg=32756))) == (56, 56)
    (scene,) = choose(other, own, epsg=32756).scenes
    assert scene.items == (own["id"], other["id"])


WEST, EAST = shapely.box(-180, 60, -179, 61), shapely.box(179, 60, 180, 61)


@pytest.mark.parametrize(
    "geometry",
    [
        {"type": "MultiPolygon", "coordinates": [
            [[[179, 60], [180, 60], [180, 61], [179, 61], [179, 60]]],
            [[[-180, 60], [-179, 60], [-179, 61], [-180, 61], [-180, 60]]],
        ]},
        # a ring that runs from 179 to -179: the long way round it would cover the whole parallel
        {"type": "Polygon", "coordinates": [[[179, 60], [-179, 60], [-179, 61], [179, 61], [179, 60]]]},
        {"type": "Polygon", "coordinates": [[[179, 60], [180.0, 60.0], [-179, 60], [-179, 61], [179, 61], [179, 60]]]},
    ],
)  # fmt: skip
def test_an_item_over_the_antimeridian_lies_on_both_sides_of_it_and_nowhere_else(geometry: dict[str, Any]) -> None:
    def there(area: Any) -> bool:
        item = {**landsat(moment="2024-05-01T12:00:00Z"), "geometry": geometry, "bbox": [179, 60, -179, 61]}
        return bool(choose(item, area=area).scenes)

    assert there(shapely.box(179.2, 60.2, 179.4, 60.4))
    assert there(shapely.box(-179.4, 60.2, -179.2, 60.4))
    assert not there(shapely.box(0, 60.2, 1, 60.4))
    assert not there(shapely.box(-178, 60.2, -177, 60.4))


# ---- facts of recorded items


@pytest.mark.shared
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (
            "planetary-computer/sentinel-2-l2a/S2B_MSIL2A_20241203T174629_R098_T13TDE_20241203T211406.json",
            ("sentinel-2b", "20241203T174629", "13TDE", 13),
        ),
        (
            "earth-search-v1/sentinel-2-c1-l2a/S2A_T13TDE_20240402T174230_L2A.json",
            ("sentinel-2a", "20240402T173901", "13TDE", 13),
        ),
        (
            "cdse/sentinel-2-l2a/S2C_MSIL2A_20260527T014651_N0512_R017_T55WFR_20260527T042005.json",
            ("sentinel-2c", "20260527T014651", "55WFR", 55),
        ),
        (
            "planetary-computer/sentinel-2-l2a/S2A_MSIL2A_20200601T080611_R078_T35MNM_20201027T072253.json",
            ("sentinel-2a", "20200601T080611", "35MNM", 35),
        ),
        (
            "usgs-landsatlook/landsat-c2l2-sr/LC08_L2SP_028030_20200114_20200824_02_T1_SR.json",
            ("landsat-8", "20200114T170546", None, 15),
        ),
    ],
)
def test_facts_of_recorded_items(path: str, expected: tuple[str, str, str | None, int], shared: Path) -> None:
    item = json.loads((shared / "stac" / path).read_text())
    assert platform(item) == expected[0]
    assert datatake(item) == expected[1]
    assert expected[2] is None or mgrs_tile(item) == expected[2]
    assert zone(item) == expected[3]


@pytest.mark.shared
def test_recorded_items_of_both_sensors_make_scenes(shared: Path) -> None:
    folder = shared / "stac" / "planetary-computer"
    items = [
        json.loads((folder / "landsat-c2-l2/LC08_L2SP_033032_20241127_02_T1.json").read_text()),
        json.loads((folder / "sentinel-2-l2a/S2B_MSIL2A_20241203T174629_R098_T13TDE_20241203T211406.json").read_text()),
    ]
    chosen = choose(*items, source=PC, area=shapely.box(-105.2, 40.0, -105.1, 40.1), epsg=32613)
    assert [s.label for s in chosen.scenes] == ["landsat-8 2024-11-27", "sentinel-2b 2024-12-03"]


# ---- which Landsat, what a user says of items, and the view from above


@pytest.mark.parametrize("spelling", ["landsat-9", "LANDSAT_9", "Landsat 9"])
def test_landsat_9_is_read_where_it_is_asked_for_and_keeps_its_name(spelling: str) -> None:
    eight = landsat(moment="2024-05-01T02:40:10Z")
    nine = landsat(moment="2024-05-09T02:40:10Z", platform=spelling)
    for asked, used in (("8", ["landsat-8"]), ("9", ["landsat-9"]), ("both", ["landsat-8", "landsat-9"])):
        chosen = choose(eight, nine, landsat=asked)
        assert [s.platform for s in chosen.scenes] == used
        assert {s.sensor for s in chosen.scenes} == {"landsat8"}
    assert why(choose(eight, nine), nine) == "platform landsat-9: only landsat-8 is used"


def test_landsat_9_finds_its_pan() -> None:
    nine = landsat(platform="landsat-9")
    (scene,) = choose(nine, pan(nine, platform="LANDSAT_9"), landsat="9").scenes
    assert len(scene.pan_items) == 1


def test_what_a_user_says_of_an_item_is_in_the_plan_and_a_name_mistyped_is_refused() -> None:
    item, other = sentinel(), sentinel(moment="2024-05-13T02:55:31Z", made="20240513T080000")
    given = overrides.parse_all([f"{item['id']}=0.0001,0"])
    rules = choose(item, other, overrides=given).radiometry
    assert rules[item["id"]].offset == 0.0
    assert "given by the user" in rules[item["id"]].rule
    assert rules[other["id"]].offset == -0.1
    with pytest.raises(CatalogError, match=r"not used: S2A_TYPO=0\.0001,0\.0"):
        choose(item, overrides=overrides.parse_all(["S2A_TYPO=0.0001,0"]))


def test_items_that_tell_their_angles_are_brought_to_a_view_from_above_all_or_none() -> None:
    angles = {"view:incidence_angle": 6.0, "view:azimuth": 104.0, "view:sun_azimuth": 150.0}
    one = sentinel(**angles)
    two = sentinel(moment="2024-05-13T02:55:31Z", made="20240513T080000")
    scene = landsat(**{"view:sun_azimuth": 150.0, "view:off_nadir": 0})
    chosen = choose(one, scene, nbar="auto")
    assert set(chosen.nbar) == {one["id"], scene["id"]}
    assert all(len(found.factors) == 6 for found in chosen.nbar.values())
    mixed = choose(one, two, scene, nbar="auto")
    assert mixed.nbar == {}
    assert two["id"] in mixed.notes[0]
    assert choose(one, scene).nbar == {}
    with pytest.raises(CatalogError, match="--nbar auto or off"):
        choose(one, two, scene, nbar="on")
