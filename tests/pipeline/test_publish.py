"""What a finished run leaves: tables against counts made by hand, files where the contract of names says."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
from matplotlib.image import imread

from pipeline import cube, publish, views
from pipeline.events import Note
from pipeline.plan import Plan
from pipeline.publish import Tally
from pipeline.store import FUSED, Store
from tests.pipeline import small_store


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Plan, publish.Published, list[Note]]:
    folder = tmp_path_factory.mktemp("publish") / "run"
    store, plan = small_store.write(folder, status="in progress")
    notes: list[Any] = []
    return store, plan, publish.finish(store, plan, listener=notes.append), notes


def test_the_files_are_where_they_are_said_to_be(run: tuple[Store, Plan, publish.Published, list[Note]]) -> None:
    store, _, published, notes = run
    assert published.files == (
        "report/scenes.json",
        "report/scenes.csv",
        "report/quicklook.png",
        "report/ndvi.png",
        "fused.stac.json",
    )
    assert store.local is not None
    assert all((store.local / name).is_file() for name in published.files)
    assert [n.kind for n in notes] == ["scenes", "quicklook", "ndvi", "item"]
    assert Path(notes[1].data).read_bytes()[:4] == b"\x89PNG"
    item = pystac.Item.from_file(str(store.local / "fused.stac.json"))
    assert {k: a.href for k, a in item.assets.items()} == {
        "cube": "./fused.zarr",
        "plan": "./plan.json",
        "quicklook": "./report/quicklook.png",
        "ndvi": "./report/ndvi.png",
        "scenes": "./report/scenes.json",
    }


def test_the_tables_count_what_the_cube_holds(run: tuple[Store, Plan, publish.Published, list[Note]]) -> None:
    _, plan, published, _ = run
    quality = small_store.fields(plan)["quality"].values
    landsat = {row.date: row for row in published.landsat}
    sentinel = {row.date: row for row in published.sentinel}
    assert (len(landsat), len(sentinel)) == (6, 12)
    for k, scene in enumerate(plan.scenes):
        shares = [100 * float((quality[k] == flag).mean()) for flag in range(7)]
        if scene.sensor == "landsat8":
            row = landsat[scene.day.isoformat()]
            assert row.fused_percent == pytest.approx(shares[2], abs=0.005)
            assert row.upsampled_percent == pytest.approx(shares[3], abs=0.005)
            assert row.clear_percent == pytest.approx(shares[2] + shares[3], abs=0.011)
        else:
            row = sentinel[scene.day.isoformat()]  # type: ignore[assignment]
            assert row.clear_percent == pytest.approx(shares[1], abs=0.005)
        assert row.masked_percent == pytest.approx(shares[4], abs=0.005)
        assert row.nothing_percent == pytest.approx(shares[0], abs=0.005)
        assert (row.time, row.platform, row.items) == (scene.time.isoformat(), scene.platform, scene.items)
    first = landsat["2023-01-20"]
    assert (first.reference, first.reference_age_days, first.references) == ("2023-01-10", 10, {"2023-01-10": 1.0})
    assert first.coherence == pytest.approx(0.0035)
    assert first.corrected == ()


def test_json_and_csv_say_the_same(run: tuple[Store, Plan, publish.Published, list[Note]]) -> None:
    store, plan, published, _ = run
    content = json.loads(store.read("report/scenes.json") or b"")
    assert content["plan_fingerprint"] == plan.fingerprint
    assert content["simulated"] is True
    assert [row["date"] for row in content["landsat"]] == [row.date for row in published.landsat]
    table = list(csv.DictReader(io.StringIO((store.read("report/scenes.csv") or b"").decode())))
    for plain, row in zip(table, content["landsat"], strict=True):
        assert float(plain["clear_percent"]) == row["clear_percent"]
        assert plain["reference"] == row["reference"]
        assert plain["references"] == " ".join(f"{day}:{share:.3f}" for day, share in row["references"].items())


def test_several_references_are_ranked_by_their_pixels() -> None:
    plan = small_store.plan()
    counted = Tally.empty(len(plan.scenes))
    k = next(k for k, s in enumerate(plan.scenes) if s.sensor == "landsat8")
    quality = np.full((1, 10, 10), cube.FUSED_PIXEL, np.uint8)
    age = np.full((1, 10, 10), -5, np.int16)
    age[0, :3] = 11  # 30 pixels; 20 of 4 days before and 20 of 4 days after tie; 30 remain at -5
    age[0, 3:5], age[0, 5:7] = -4, 4
    residual = np.full((1, 10, 10), 20, np.int16)
    residual[0, 0, 0] = cube.FILL
    counted.add(slice(k, k + 1), "r000c000", quality, age, residual)
    row = publish.rows(plan, counted)[0][0]
    day = plan.scenes[k].day.isoformat()
    assert day == "2023-01-20"
    assert list(row.references) == ["2023-01-25", "2023-01-09", "2023-01-16", "2023-01-24"]
    assert list(row.references.values()) == [0.3, 0.3, 0.2, 0.2]
    assert (row.reference, row.reference_age_days) == ("2023-01-25", -5)
    assert row.coherence == pytest.approx(0.002)


def test_the_order_of_tiles_does_not_change_the_tally() -> None:
    rng = np.random.default_rng(3)
    parts = [
        (
            rng.integers(0, 5, (2, 6, 6), np.uint8),
            rng.integers(-9, 9, (2, 6, 6), np.int16),
            np.ones((2, 6, 6), np.int16),
        )
        for _ in range(4)
    ]
    one, other = Tally.empty(2), Tally.empty(2)
    for k in range(4):
        one.add(slice(0, 2), str(k), *parts[k])
        other.add(slice(0, 2), str(3 - k), *parts[3 - k])
    assert (one.quality == other.quality).all()
    assert one.ages == other.ages
    assert (one.coherence == other.coherence).all()


def test_a_date_without_a_pixel_has_no_reference() -> None:
    plan = small_store.plan()
    row = publish.rows(plan, Tally.empty(len(plan.scenes)))[0][0]
    assert (row.reference, row.reference_age_days, row.references, row.coherence) == (None, None, {}, None)
    assert row.clear_percent == 0.0


def test_a_cube_without_a_landsat_pixel_has_tables_and_no_pictures(tmp_path: Path) -> None:
    store, plan = small_store.write(tmp_path)
    for k, scene in enumerate(plan.scenes):
        if scene.sensor == "landsat8":
            cube.array(store, FUSED, "quality", "r+")[k] = 0
    notes: list[Any] = []
    published = publish.finish(store, plan, listener=notes.append)
    assert published.files == ("report/scenes.json", "report/scenes.csv", "fused.stac.json")
    assert [n.kind for n in notes] == ["scenes", "warning", "item"]
    assert "quicklook" not in pystac.Item.from_file(str(tmp_path / "fused.stac.json")).assets


def test_the_truth_is_asked_for_the_ground_that_is_shown(tmp_path: Path) -> None:
    store, plan = small_store.write(tmp_path)
    asked: list[tuple[datetime, float, float, tuple[int, int]]] = []

    def truth(day: datetime, x0: float, y0: float, shape: tuple[int, int]) -> views.Floats:
        asked.append((day, x0, y0, shape))
        return np.full((6, *shape), 0.3, np.float32)

    publish.finish(store, plan, truth=truth)
    images = [a for a in asked if a[3] != (3, 3)]
    assert {a[1:] for a in images} == {(plan.grid.left, plan.grid.top, (108, 120))}
    assert 1 <= len(images) <= views.COLUMNS
    points = [a for a in asked if a[3] == (3, 3)]
    assert len(points) % len(plan.scenes) == 0
    assert all(plan.grid.left <= x < plan.grid.left + 1200 and x % 10 == 0 for _, x, _, _ in points)


def test_the_tile_with_most_pixels_is_shown_and_of_equals_the_middle_one() -> None:
    plan = small_store.plan(grid=small_store.Grid(32651, 300000, 5460000, 30, 30, 60))
    counted = Tally.empty(len(plan.scenes))
    for tile in plan.grid.tiles():
        quality = np.full((len(plan.scenes), 60, 60), cube.FUSED_PIXEL, np.uint8)
        if tile.name == "r001c001":
            quality[:, :1] = cube.HIDDEN  # 1.7 % less than the others, and in the middle
        empty = np.full(quality.shape, cube.FILL, np.int16)
        counted.add(slice(0, len(plan.scenes)), tile.name, quality, empty, empty)
    assert publish.best_tile(plan, counted).name == "r001c001"
    counted.by_tile["r001c001"][:, cube.FUSED_PIXEL] //= 2
    assert publish.best_tile(plan, counted).name != "r001c001"


def test_the_pictures_are_stamped_where_and_only_where_simulated(tmp_path: Path) -> None:
    def red(path: Path) -> int:
        image = imread(path)
        return int(((image[:90, -400:, 0] > 0.65) & (image[:90, -400:, 1] < 0.2)).sum())

    for name, simulated in (("made", True), ("seen", False)):
        store, plan = small_store.write(tmp_path / name, small_store.plan(simulated=simulated))
        publish.finish(store, plan)
        for picture in ("quicklook", "ndvi"):
            count = red(tmp_path / name / f"report/{picture}.png")
            assert count > 300 if simulated else count == 0
