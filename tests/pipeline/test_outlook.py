"""What a plan will cost, told from the items alone: sky, pan, bytes, time, and what is left out."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from typing import Any

import pystac
import pytest

from flows.commands.jobs import described
from pipeline import outlook, units
from pipeline.duration import Rates
from pipeline.frame import frame_of
from pipeline.outlook import clear_share, particulars
from pipeline.plan import Dropped, Hole, Options, WeightsRef
from tests.pipeline import small_store


def items_of(plan: Any, **clouds: float) -> pystac.ItemCollection:
    """Items of a plan with their reported cloud, by platform."""
    items = small_store.collection(plan.scenes)
    for item in items:
        item.geometry = {"type": "Polygon", "coordinates": [[[119, 48], [122, 48], [122, 51], [119, 51], [119, 48]]]}
        cloud = clouds.get(item.properties["platform"].replace("-", "_"))
        if cloud is not None:
            item.properties["eo:cloud_cover"] = cloud
    return items


def test_reported_cloud_is_told_a_month_and_sensor() -> None:
    plan = small_store.plan()
    told = outlook.outlook(plan, items_of(plan, landsat_8=25.0, sentinel_2a=60.0))
    may = next(m for m in told.months if m.month == "2023-05")
    assert may.landsat_clear == pytest.approx(0.75)
    # sentinel-2b, which passed in May, too, reports nothing and is not counted as clear
    assert may.sentinel2_clear == pytest.approx(0.4)
    assert told.year_row.landsat == len(plan.of("landsat8"))
    assert told.year_row.sentinel2_clear == pytest.approx(0.4)
    lines = told.lines()
    assert any(re.match(r"2023-05 +1 +75 % +0 +2 +40 %$", line) for line in lines), lines
    assert any(re.match(r"year +6 +75 % +0 +12 +40 %$", line) for line in lines), lines


def test_without_reported_cloud_no_share_is_told() -> None:
    plan = small_store.plan()
    told = outlook.outlook(plan, items_of(plan))
    assert {m.sentinel2_clear for m in told.months} == {None}
    assert "%" not in "".join(told.lines()[1:10])
    assert clear_share(plan.scenes[0], {}) is None


@pytest.mark.parametrize("alone", [True, False])
def test_bytes_are_those_of_the_blocks_that_hold_what_is_read_at_once(
    alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = small_store.plan()
    items = items_of(plan)
    expected = 0.0
    # by default all tiles of so small a plane are one reading unit
    windows = plan.tiles if alone else [units.bounding(plan.tiles)]
    monkeypatch.setenv("MARSTFN_UNIT_MB", "0" if alone else "2100")
    for window in windows:
        rows, columns = window.shape(10)

        def blocks(size: int, rows: int = rows, columns: int = columns) -> float:
            return (rows * 10 / size + 512) * (columns * 10 / size + 512)

        # three bands of 10 m, three of 20 m and SCL; six of 30 m, QA_PIXEL and QA_RADSAT
        expected += 12 * (blocks(10) * 2 * 3 * 0.85 + blocks(20) * (2 * 3 * 0.85 + 0.06))
        expected += 6 * blocks(30) * 2 * (6 * 0.85 + 2 * 0.06)
    told = outlook.outlook(plan, items)
    assert told.read_mb == pytest.approx(expected / 1e6, rel=0.01)
    assert outlook.outlook(plan).read_mb == 0
    assert any("expected to be read" in line and "assumed" in line for line in told.lines())
    assert not any("expected to be read" in line for line in outlook.outlook(plan).lines())


def test_an_item_is_read_as_far_as_it_covers_the_area() -> None:
    plan = small_store.plan()
    items = items_of(plan)
    whole = outlook.outlook(plan, items).read_mb
    half = {"type": "Polygon", "coordinates": [[[120, 49], [120.2595, 49], [120.2595, 50], [120, 50], [120, 49]]]}
    for item in items:
        item.geometry = half
    assert outlook.outlook(plan, items).read_mb == pytest.approx(whole / 2, rel=0.06)


def test_pan_adds_to_what_is_read_and_is_counted() -> None:
    plan = small_store.plan()
    scenes = tuple(
        s.model_copy(update={"pan_items": (f"{s.items[0]}-L1",)}) if s.sensor == "landsat8" else s for s in plan.scenes
    )
    sharp = plan.model_copy(update={"scenes": scenes})
    items = items_of(plan)
    assert outlook.outlook(sharp, items).read_mb > outlook.outlook(plan, items).read_mb
    assert outlook.outlook(sharp, items).year_row.with_pan == 6


def test_a_file_is_no_larger_than_its_ground() -> None:
    plan = small_store.plan()
    items = items_of(plan)
    whole = outlook.outlook(plan, items).read_mb
    side = 0.001  # of a degree: 111 m north, 73 m east, of an area of 1200 m
    corner = [[120.252, 49.251], [120.252 + side, 49.251], [120.252 + side, 49.251 + side], [120.252, 49.251 + side]]
    for item in items:
        item.geometry = {"type": "Polygon", "coordinates": [[*corner, corner[0]]]}
    assert outlook.outlook(plan, items).read_mb < whole / 1000


def test_time_follows_bytes_pixels_and_cores_and_is_not_made_up() -> None:
    plan = small_store.plan()
    items = items_of(plan)

    def told(**options: Any) -> outlook.Outlook:
        return outlook.outlook(plan.model_copy(update={"options": Options(time_shard=8, **options)}), items)

    one, four = told(threads=1).duration, told(threads=4).duration
    assert one is not None
    assert four is not None
    assert one.ingest == four.ingest == pytest.approx(told(threads=1).read_mb / 10)
    # what four cores save of it is three quarters of the network's time
    assert (one.fuse - four.fuse) * 4 / 3 == pytest.approx(_patches(plan) * 60**2 * 6 / 40_000)
    cuda = told(threads=1, device="cuda")
    assert cuda.duration is None
    assert any("was not measured" in line for line in cuda.lines())


def _patches(plan: Any) -> int:
    """Counted tile by tile, as fusing frames them."""
    frames = [frame_of(plan, tile) for tile in plan.tiles]
    return sum(len(frame.rows) * len(frame.cols) for frame in frames)


def test_clouds_save_their_share_of_the_patches() -> None:
    plan = small_store.plan()
    rates = Rates(1000.0, pack_mb_s=1e9, reads_s=1.0)
    clear = outlook.outlook(plan, items_of(plan), rates).duration
    cloudy = outlook.outlook(plan, items_of(plan, landsat_8=75.0), rates).duration
    assert clear is not None
    assert cloudy is not None
    assert cloudy.fuse == pytest.approx(clear.fuse / 4, rel=1e-3)


def test_what_earlier_runs_came_to_outweighs_what_was_measured() -> None:
    plan = small_store.plan()
    items = items_of(plan)
    measured = Rates(1000.0, reads_s=5.0, source="measured on this machine")
    learned = replace(measured, ingest_mb_s=2.0, fuse_px_s=500.0, source="as 1 earlier run(s) of this kind had it")
    told = outlook.outlook(plan, items, learned)
    assert told.duration is not None
    assert told.duration.ingest == pytest.approx(told.read_mb / 2)
    assert told.duration.fuse == pytest.approx(_patches(plan) * 60**2 * 6 / 500)
    assert any("earlier run" in line for line in told.lines())


def test_the_plan_says_what_is_left_out_and_what_the_catalogue_lacks() -> None:
    plan = small_store.plan(
        dropped=(
            Dropped(item="a", why="same data as b, which is the newer processing"),
            Dropped(item="c", why="same acquisition as d, which is of the Level-2 item's processing"),
            Dropped(item="e", why="same acquisition as f, which is of the Level-2 item's processing"),
        ),
        holes=(Hole(sensor="landsat8", track="path/row 124/026 of landsat-8", days=(date(2024, 3, 3),)),),
        weights=(WeightsRef(source="marstfn-nopan", sha256="0" * 64, pan=False, patch=60),),
    )
    lines = described(plan, "store", items_of(plan))
    assert lines[-3:] == [
        "left out: 2 x same acquisition as another processing",
        "left out: 1 x same data as a newer processing",
        "scenes of path/row 124/026 of landsat-8 expected and not in the catalogue: 2024-03-03",
    ]
    assert "left out: a: same data as b, which is the newer processing" in described(plan, full=True)


def test_particulars_show_the_mosaic_the_pan_and_the_rule_of_each_scene() -> None:
    plan = small_store.plan()
    first = plan.of("landsat8")[0]
    scene = first.model_copy(update={"items": (*first.items, "second"), "pan_items": ("pan",)})
    plan = plan.model_copy(update={"scenes": (scene,)})
    (line,) = particulars(plan, items_of(small_store.plan(), landsat_8=10.0))
    assert line == (
        "landsat-8 2023-01-20, 90 % clear: landsat-8-20230120 second (2 items, the first on top), pan pan; test"
    )
