"""The lattice: shared corners, tiles that cover the plane once, north and south of the equator."""

from __future__ import annotations

import math
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geom import Geometry, box, point
from pyproj import Transformer

from pipeline.errors import PlanError
from pipeline.grid import CELL, RESOLUTIONS, Grid, Window

grids = st.builds(
    Grid,
    st.sampled_from([32601, 32650, 32660, 32719]),
    st.integers(0, 15_000).map(lambda k: k * CELL),
    st.integers(10, 160_000).map(lambda k: k * CELL),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([60, 66, 120, 480]),
)


@settings(deadline=None)
@given(grids)
def test_geoboxes_of_all_resolutions_share_corners(grid: Grid) -> None:
    for resolution in RESOLUTIONS:
        geobox = grid.geobox(resolution)
        bounds = geobox.boundingbox
        assert (bounds.left, bounds.top) == (grid.left, grid.top)
        assert (bounds.right, bounds.bottom) == (grid.left + grid.columns * CELL, grid.top - grid.rows * CELL)
        assert geobox.shape == grid.shape(resolution)
        assert bounds.left % resolution == bounds.top % resolution == 0


@settings(deadline=None)
@given(grids)
def test_tiles_cover_every_cell_once(grid: Grid) -> None:
    seen = set()
    for tile in grid.tiles():
        cells = {(r, c) for r in range(tile.row0, tile.row1) for c in range(tile.col0, tile.col1)}
        assert cells
        assert not cells & seen
        seen |= cells
        assert max(tile.shape(10)) <= grid.tile_px
    assert len(seen) == grid.rows * grid.columns
    assert [t.name for t in grid.tiles()] == sorted(t.name for t in grid.tiles())


@settings(deadline=None)
@given(grids, st.integers(0, 5))
def test_windows_are_where_their_slices_say(grid: Grid, cells: int) -> None:
    whole = grid.geobox(30)
    for tile in grid.tiles():
        window = tile.padded(cells)
        rows, cols = window.roi(30)
        assert window.geobox(30) == whole[rows, cols]
        assert 0 <= rows.start <= rows.stop <= whole.shape[0]
        assert 0 <= cols.start <= cols.stop <= whole.shape[1]


@settings(deadline=None)
@given(grids)
def test_grids_pickle_and_compare_by_value(grid: Grid) -> None:
    assert pickle.loads(pickle.dumps(grid)) == grid
    tile = grid.tile(0, 0)
    assert pickle.loads(pickle.dumps(tile)) == tile


@settings(deadline=None, max_examples=30)
@given(st.floats(-179.9, 179.9), st.floats(-79, 83), st.floats(0.001, 2.0), st.floats(0.001, 1.0))
def test_covering_holds_the_area_with_less_than_a_cell_to_spare(lon: float, lat: float, dx: float, dy: float) -> None:
    east, north = min(lon + dx, 180.0), lat + dy
    grid = Grid.covering(box(lon, lat, east, north, "EPSG:4326"))
    assert grid.epsg // 100 == (326 if (lat + north) / 2 >= 0 else 327)
    # the edges bulge between the corners: sample them
    n = 400
    xs = [lon + (east - lon) * i / n for i in range(n + 1)]
    ys = [lat + (north - lat) * i / n for i in range(n + 1)]
    ring = [(x, y) for x in xs for y in (lat, north)] + [(x, y) for y in ys for x in (lon, east)]
    project = Transformer.from_crs(4326, grid.epsg, always_xy=True)
    points = [project.transform(*p) for p in ring]
    right, bottom = grid.left + grid.columns * CELL, grid.top - grid.rows * CELL
    west, south = min(x for x, _ in points), min(y for _, y in points)
    easternmost, top = max(x for x, _ in points), max(y for _, y in points)
    slack = 0.1  # metres: a curved edge between two samples
    assert grid.left <= west + slack < grid.left + CELL + 2 * slack
    assert right >= easternmost - slack > right - CELL - 2 * slack
    assert grid.top >= top - slack > grid.top - CELL - 2 * slack
    assert bottom <= south + slack < bottom + CELL + 2 * slack


def test_a_square_on_the_lattice_is_covered_by_itself() -> None:
    area = box(600_000, 5_400_000, 603_000, 5_406_000, "EPSG:32650").to_crs("EPSG:4326", resolution=10)
    assert Grid.covering(area, epsg=32650) == Grid(32650, 600_000, 5_406_000, 50, 100)


def test_edges_straight_in_degrees_bulge_and_are_covered_all_the_same() -> None:
    # across the central meridian the southern edge sags between its corners
    west, south, east, north = 116.3, 50.0, 117.7, 50.3
    grid = Grid.covering(box(west, south, east, north, "EPSG:4326"))
    project = Transformer.from_crs(4326, grid.epsg, always_xy=True)
    bottom = min(project.transform(west + (east - west) * i / 1000, south)[1] for i in range(1001))
    assert min(project.transform(x, south)[1] for x in (west, east)) - bottom > 2 * CELL, "the case has a bulge to miss"
    assert grid.top - grid.rows * CELL <= bottom + 1e-3


def test_south_of_the_equator_northings_count_from_ten_million() -> None:
    grid = Grid.covering(box(27.1, -8.1, 27.2, -8.0, "EPSG:4326"))
    assert grid.epsg == 32735
    assert 9_000_000 < grid.top < 10_000_000
    assert grid.top % CELL == 0


def test_hailar_lies_in_zone_50_although_zone_51_begins_25_km_east() -> None:
    assert Grid.covering(box(119.5, 49.1, 119.9, 49.3, "EPSG:4326")).epsg == 32650


def test_tiles_of_an_area_are_those_it_meets() -> None:
    grid = Grid(32650, 600_000, 5_406_000, 40, 40, 60)
    corners = [(600_000, 5_406_000), (600_600, 5_406_000), (602_400, 5_403_600), (600_000, 5_406_000)]
    diagonal = Geometry({"type": "Polygon", "coordinates": [corners]}, "EPSG:32650")
    met = {(t.row, t.col) for t in grid.tiles(diagonal)}
    expected = {(t.row, t.col) for t in grid.tiles() if t.geobox(10).extent.intersection(diagonal).area > 0}
    assert met == expected
    assert 0 < len(met) < 16
    # touching an edge is not meeting
    assert {t.name for t in grid.tiles(box(600_000, 5_405_400, 600_600, 5_406_000, "EPSG:32650"))} == {"r000c000"}


def test_edge_tiles_are_smaller() -> None:
    grid = Grid(32650, 0, 6000, 25, 11, 60)
    assert grid.tile_shape == (2, 3)
    assert grid.tile(1, 2).shape(10) == (6, 30)
    assert grid.tile(1, 2).name == "r001c002"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"left": 30}, "not on the 60 m lattice"),
        ({"top": 6001}, "not on the 60 m lattice"),
        ({"tile_px": 100}, "multiple of 6"),
        ({"tile_px": 54}, "multiple of 6 px of at least 60"),
        ({"columns": 0}, "is empty"),
    ],
)
def test_what_is_no_grid_is_refused(change: dict[str, int], words: str) -> None:
    fields = {"epsg": 32650, "left": 0, "top": 6000, "columns": 5, "rows": 5, "tile_px": 480}
    with pytest.raises(PlanError, match=words):
        Grid(**{**fields, **change})


def test_tiles_and_resolutions_outside_are_refused() -> None:
    grid = Grid(32650, 0, 6000, 5, 5)
    with pytest.raises(PlanError, match=r"tile \(1, 0\) lies outside the grid of 1 x 1 tiles"):
        grid.tile(1, 0)
    with pytest.raises(PlanError, match="resolution 25 m"):
        grid.geobox(25)


def test_a_zone_may_be_forced() -> None:
    area = point(120.01, 49.2, "EPSG:4326").buffer(0.01)
    assert Grid.covering(area).epsg == 32651
    forced = Grid.covering(area, epsg=32650)
    assert forced.epsg == 32650
    assert math.isclose(forced.columns, 25, abs_tol=3)


@given(grids, st.data())
def test_tiles_under_a_window_are_those_that_share_a_cell_with_it(grid: Grid, data: st.DataObject) -> None:
    row0 = data.draw(st.integers(0, grid.rows - 1))
    col0 = data.draw(st.integers(0, grid.columns - 1))
    row1 = data.draw(st.integers(row0 + 1, grid.rows))
    col1 = data.draw(st.integers(col0 + 1, grid.columns))
    shared = [t for t in grid.tiles() if t.row0 < row1 and row0 < t.row1 and t.col0 < col1 and col0 < t.col1]
    assert list(grid.under(Window(grid, row0, row1, col0, col1))) == shared
