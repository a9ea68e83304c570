"""Pictures: what is chosen for them, and that tones, holes and stamps are what the data say."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread
from odc.geo.geom import point as geo_point

from pipeline import drawing, places, publish, quicklook, views
from pipeline.drawing import Curve, Overview
from pipeline.grid import Grid
from pipeline.plan import Plan
from pipeline.views import View
from tests.pipeline import small_store


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    store, plan = small_store.write(tmp_path_factory.mktemp("quicklook") / "run")
    counted = publish.tally(store, plan)
    return views.choose(store, plan, next(plan.grid.tiles()), counted.quality, [10] * len(plan.scenes))


def image(png: bytes) -> np.ndarray[Any, Any]:
    return imread(io.BytesIO(png))


def test_the_same_stretch_serves_all_images_of_a_column() -> None:
    rng = np.random.default_rng(1)
    dark, bright = rng.uniform(0.0, 0.1, (3, 50, 50)), rng.uniform(0.2, 0.4, (3, 50, 50))
    low, high = drawing.stretch_limits([dark, bright])
    shown = [drawing.natural_colour(i, low, high)[..., :3] for i in (dark, bright)]
    assert shown[0].mean() < 0.45 < 0.65 < shown[1].mean()


def test_a_flat_scene_is_not_blown_up_to_noise() -> None:
    flat = np.full((3, 40, 40), 0.2) + np.random.default_rng(2).normal(0, 1e-3, (3, 40, 40))
    low, high = drawing.stretch_limits([flat])
    assert (high - low > 0.04).all()
    assert drawing.natural_colour(flat, low, high)[..., :3].std() < 0.1


def test_nothing_is_transparent_and_only_nothing() -> None:
    plane = np.full((3, 4, 5), 0.2)
    plane[1, 2, 3] = np.nan
    alpha = drawing.natural_colour(plane, np.zeros(3), np.full(3, 0.4))[..., 3]
    assert alpha[2, 3] == 0
    assert alpha.sum() == 19
    assert np.isfinite(drawing.stretch_limits([np.full((3, 2, 2), np.nan)])).all()


def test_red_green_and_blue_keep_their_order(view: View) -> None:
    """A panel's first plane is red: a cube whose red alone is high must look red."""
    rgb = [small_store.BANDS.index(b) for b in views.RGB]
    fine = np.full((6, 3, 3), 0.05)
    fine[small_store.BANDS.index("red")] = 0.3
    colour = drawing.natural_colour(fine[rgb], np.zeros(3), np.full(3, 0.3))[0, 0]
    assert colour[0] > 0.9
    assert max(colour[1:3]) < 0.4


def test_shown_dates_are_landsats_and_apart(view: View) -> None:
    shown = views.shown_dates(view)
    assert len(shown) == views.COLUMNS
    assert list(shown) == sorted(set(shown))
    days = [view.plan.scenes[k].day.isoformat() for k in shown]
    assert {view.plan.scenes[k].sensor for k in shown} == {"landsat8"}
    # the first is the earliest that is whole (January has a cloud), then the farthest, then the middle between them
    assert days == ["2023-03-25", "2023-05-28", "2023-07-31", "2023-12-06"]


def test_clouded_dates_are_shown_only_where_there_is_no_other(view: View) -> None:
    fine = view.fine.copy()
    landsat = [k for k, s in enumerate(view.plan.scenes) if s.sensor == "landsat8"]
    for k in landsat[:4]:
        fine[k, :, :80] = np.nan
    clouded = View(view.plan, view.window, view.shares, fine, view.coarse, view.overview, view.ages, None)
    assert views.shown_dates(clouded) == tuple(landsat[4:])
    for k in landsat:
        fine[k, :, :80] = np.nan
    assert len(views.shown_dates(clouded)) == views.COLUMNS


def test_without_a_truth_the_nearest_clear_sentinel_stands_beside(view: View) -> None:
    landsat = [k for k, s in enumerate(view.plan.scenes) if s.sensor == "landsat8"]
    panels = {p.title: p for p in (views._panel(view, k) for k in landsat)}
    assert panels["2023-01-20"].compared_note == "2023-01-10, 10 days before"
    assert panels["2023-12-06"].compared_note == "2023-11-06, 30 days before"
    assert panels["2023-01-20"].note == "93 % known, reference 10 days before"
    assert panels["2023-01-20"].coarse.shape == (3, 36, 40)
    assert panels["2023-01-20"].fine.shape == (3, 108, 120)


@pytest.mark.parametrize(
    ("age", "text"),
    [
        (None, ", no reference"),
        (0, ", reference of the same day"),
        (1, ", reference 1 day before"),
        (-3, ", reference 3 days after"),
    ],
)
def test_how_old_the_reference_is(age: int | None, text: str) -> None:
    assert views._reference(age) == text


def test_places_lie_on_even_ground_and_apart(view: View) -> None:
    index = views._index(view.fine)
    found = places.pick(index)
    assert len(found) == 4
    cells = [(row, col) for _, row, col in found]
    for k, (row, col) in enumerate(cells):
        assert all(max(abs(row - r), abs(col - c)) > 12 for r, c in cells[:k])
        # parcels of the fixture are 12 x 15 px: 3 x 3 px around a place lie in one
        assert {(r // 12, c // 15) for r in (row - 1, row + 1) for c in (col - 1, col + 1)} == {(row // 12, col // 15)}
    swing = np.nanstd(index, axis=0)
    named = {name: swing[row, col] for name, row, col in found}
    assert named["largest seasonal swing"] > 4 * named["least green over the year"]


def test_a_curve_is_the_mean_of_nine_pixels(view: View) -> None:
    index = views._index(view.fine)
    curve = views.curves(view, index)[0]
    assert curve.place is not None
    col, row = (int(v) for v in curve.place)
    nine = index[:, row - 1 : row + 2, col - 1 : col + 2].reshape(len(index), -1)
    lon, lat = (float(v) for v in curve.lon_lat.split(","))
    x, y = geo_point(lon, lat, "EPSG:4326").to_crs(view.plan.grid.geobox(10).crs).coords[0]
    grid = view.plan.grid  # shown whole
    assert (int((x - grid.left) // 10), int((grid.top - y) // 10)) == (col, row)
    np.testing.assert_allclose(curve.values, nine.mean(axis=1), atol=1e-6, equal_nan=True)
    assert list(curve.fused) == [s.sensor == "landsat8" for s in view.plan.scenes]
    assert curve.truth is None


@pytest.mark.parametrize(("row", "col"), [(0, 0), (3, 5)])
def test_the_detail_lies_inside_the_grid(row: int, col: int) -> None:
    grid = Grid(32651, 300000, 5460000, 300, 250, 480)
    window = views.detail(small_store.plan(grid=grid), grid.tile(min(row, 3), min(col, 3)))
    assert window.shape(10) == (198, 198)
    assert 0 <= window.row0 < window.row1 <= grid.rows
    assert 0 <= window.col0 < window.col1 <= grid.columns


def test_a_small_grid_is_shown_whole(view: View) -> None:
    assert view.window == view.plan.grid.window
    assert view.overview.detail is None


def test_the_pictures_are_drawn_without_a_figure_manager(view: View) -> None:
    first, second = views.quicklook(view), views.ndvi(view)
    assert image(first).shape[:2] > (1000, 1000)
    assert image(second).shape[1] == 1250
    assert views.quicklook(view) == first  # the same store, the same picture
    assert "matplotlib.pyplot" not in dir(matplotlib) or not matplotlib.pyplot.get_fignums()


def test_one_date_alone_is_a_picture_too(tmp_path: Path) -> None:
    plan = small_store.plan()
    landsat = [s for s in plan.scenes if s.sensor == "landsat8"]
    few: Plan = small_store.plan(scenes=tuple(s for s in plan.scenes if s.sensor != "landsat8" or s == landsat[2]))
    store, _ = small_store.write(tmp_path, few)
    published = publish.finish(store, few)
    assert "report/quicklook.png" in published.files


def test_a_curve_without_a_single_value_is_drawn_empty() -> None:
    times = np.array(["2023-03-01", "2023-06-01"], "datetime64[us]")
    nothing = Curve("x", times, np.full(2, np.nan), np.array([True, False]), place=(1.0, 1.0))
    png = quicklook.ndvi_curves(
        [nothing],
        Overview(np.full((3, 9, 9), np.nan), None, "caption"),
        np.full((9, 9), np.nan),
        title="t",
        subtitle="s",
        credits="c",
        simulated=False,
    )
    assert image(png).shape[1] == 1250
