"""An item that promised pixels over the area and gave none is told, wherever a person may look."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pystac
import pytest
import shapely

from pipeline import cube, ledger, publish, status, verify, yields
from pipeline.errors import AssetError, CubeError
from pipeline.plan import Plan
from pipeline.store import Store
from pipeline.yields import Missed
from tests.pipeline import small_store

WIDE = {"type": "Polygon", "coordinates": [[[120, 49], [121, 49], [121, 50], [120, 50], [120, 49]]]}


def items(plan: Plan, **geometries: object) -> dict[str, pystac.Item]:
    """The plan's items, all of them over the whole area unless `geometries` says otherwise."""
    found = {i.id: i for i in small_store.collection(plan.scenes)}
    for name, item in found.items():
        item.geometry = geometries.get(name.replace("-", "_"), WIDE)
    return found


def emptied(store: Store, plan: Plan, sensor: str, dates: list[int], tiles: int = 4) -> None:
    """Enter in the ledger that these dates gave nothing in the first `tiles` tiles."""
    for tile in plan.tiles[:tiles]:
        record = ledger.read(store, "ingest", tile.name)
        assert record is not None
        counts = [[0, 0, sum(c)] if k in dates else c for k, c in enumerate(record.stats[sensor])]
        ledger.write(store, dataclasses.replace(record, stats=record.stats | {sensor: counts}))


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Store, Plan]:
    return small_store.write(tmp_path / "store")


def test_where_every_item_gives_something_nothing_is_told_or_written(finished: tuple[Store, Plan]) -> None:
    store, plan = finished
    found = yields.missed(plan, store, items(plan))
    yields.write(store, found)
    assert found == ()
    assert store.read(yields.NAME) is None


def test_an_item_that_covers_the_area_and_gave_nothing_is_named_with_both_shares(finished: tuple[Store, Plan]) -> None:
    store, plan = finished
    emptied(store, plan, "sentinel2", [3])
    scene = plan.of("sentinel2")[3]
    (lost,) = yields.missed(plan, store, items(plan))
    assert (lost.item, lost.group, lost.expected, lost.found) == (scene.items[0], "sentinel2", 1, 0)
    for words in (scene.items[0], scene.label, "100%", "0% were found", "proj:transform", "plan anew"):
        assert words in lost.text


def test_what_was_missed_is_told_wherever_a_person_looks(finished: tuple[Store, Plan]) -> None:
    store, plan = finished
    lost = Missed("S2A_X", "sentinel-2a 2023-04-10", "sentinel2", 0.98, 0.0)
    yields.write(store, [lost])
    assert yields.read(store) == (lost,)
    assert any("S2A_X" in line and "expected 98%, found 0%" in line for line in status.read(store).lines)
    report = verify.verify(store)
    assert report.ok, "the store is as it should be: it is the catalogue that is wrong"
    assert any(lost.text in line for line in report.lines)
    publish.finish(store, plan)
    told = json.loads(store.read(publish.SCENES_JSON) or b"")["without_pixels"]
    assert [entry["item"] for entry in told] == ["S2A_X"]
    cube.set_missed(store, [lost.line])
    assert cube.open_cube(store.url).attrs["items_without_pixels"] == [lost.line]


def test_an_item_off_the_area_promised_nothing(finished: tuple[Store, Plan]) -> None:
    store, plan = finished
    emptied(store, plan, "sentinel2", [3])
    name = plan.of("sentinel2")[3].items[0]
    elsewhere = shapely.geometry.mapping(shapely.box(10, 10, 11, 11))
    assert yields.missed(plan, store, items(plan, **{name.replace("-", "_"): elsewhere})) == ()
    assert yields.missed(plan, store, items(plan, **{name.replace("-", "_"): None})) == ()


def test_of_two_items_of_a_day_the_one_that_gave_nothing_is_named(tmp_path: Path) -> None:
    """West and east half of a day; only the west came."""
    plain = small_store.plan()
    scenes = list(plain.scenes)
    where = next(k for k, s in enumerate(scenes) if s.sensor == "sentinel2")
    scenes[where] = scenes[where].model_copy(update={"items": ("west", "east")})
    plan = small_store.plan(
        scenes=tuple(scenes),
        radiometry=plain.radiometry | dict.fromkeys(("west", "east"), next(iter(plain.radiometry.values()))),
    )
    store, _ = small_store.write(tmp_path / "store", plan)
    west, east = (t.geobox(10).extent.to_crs("EPSG:4326").geom for t in plan.tiles[:2])
    middle = (west.bounds[2] + east.bounds[0]) / 2
    halves = {
        "west": shapely.geometry.mapping(shapely.box(120, 49, middle, 50)),
        "east": shapely.geometry.mapping(shapely.box(middle, 49, 121, 50)),
    }
    assert yields.missed(plan, store, items(plan, **halves)) == ()
    for tile in (plan.tiles[1], plan.tiles[3]):
        record = ledger.read(store, "ingest", tile.name)
        assert record is not None
        counts = [[0, 0, sum(record.stats["sentinel2"][0])], *record.stats["sentinel2"][1:]]
        ledger.write(store, dataclasses.replace(record, stats=record.stats | {"sentinel2": counts}))
    (lost,) = yields.missed(plan, store, items(plan, **halves))
    assert lost.item == "east"
    assert 0.3 < lost.expected < 0.6
    assert lost.found < 0.02


@pytest.mark.parametrize(("sensor", "title"), [("sentinel2", "Sentinel-2"), ("landsat8", "Landsat 8")])
def test_a_whole_sensor_without_a_pixel_is_an_error(finished: tuple[Store, Plan], sensor: str, title: str) -> None:
    store, plan = finished
    emptied(store, plan, sensor, list(range(12)))
    with pytest.raises(AssetError, match=rf"none of the \d+ {title} scenes.*such as .*expected 100%.*plan anew"):
        yields.missed(plan, store, items(plan))


def test_a_tile_that_is_not_in_the_ledger_is_named(finished: tuple[Store, Plan]) -> None:
    store, plan = finished
    store.delete(ledger.name("ingest", plan.tiles[2].name))
    with pytest.raises(CubeError, match=rf"{plan.tiles[2].name} is not in the ledger.*ingest it first"):
        yields.missed(plan, store, items(plan))


def test_what_cannot_be_read_is_as_good_as_nothing(finished: tuple[Store, Plan]) -> None:
    store, _ = finished
    store.write(yields.NAME, b'[{"item": 1')
    assert yields.read(store) == ()
