"""What is read together: which tiles, within what memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geom import polygon

from pipeline import cube, units
from pipeline.errors import PlanError
from pipeline.grid import Grid
from pipeline.plan import Options
from pipeline.settings import Settings
from tests.pipeline import small_store

GRID = Grid(32650, 600_000, 5_400_000, 75, 62, 60)  # 8 x 7 tiles, the last ones smaller


@given(st.sets(st.tuples(st.integers(0, 6), st.integers(0, 7)), min_size=1), st.integers(1, 5))
def test_every_tile_is_read_once(places, side):
    todo = [GRID.tile(*place) for place in sorted(places)]
    cells, alone = units.divided(GRID, todo, side)
    in_cells = [t for cell in cells for t in todo if (t.row // side, t.col // side) == (cell.row, cell.col)]
    assert sorted(t.name for t in (*in_cells, *alone)) == [t.name for t in todo]
    for cell in cells:
        tiles = [t for t in todo if (t.row // side, t.col // side) == (cell.row, cell.col)]
        window = units.bounding(tiles)
        assert 2 <= len(tiles) <= side * side
        assert 2 * len(tiles) >= len(list(GRID.under(window)))
        assert cell.row0 <= window.row0 < window.row1 <= cell.row1
        assert cell.col0 <= window.col0 < window.col1 <= cell.col1
    names = [cell.name for cell in cells]
    assert len(set(names)) == len(names)
    assert side > 1 or not cells


@pytest.mark.parametrize("side", [1, 2, 3, 5])
def test_the_tiles_of_a_cell_are_those_of_the_plan(side):
    """An area with a slanting edge: some tiles of the grid are none of the run's."""
    box = GRID.geobox(10).boundingbox
    corners = [(box.left, box.top), (box.right, box.top), (box.left, box.bottom), (box.left, box.top)]
    plan = small_store.plan(grid=GRID, aoi=polygon(corners, "EPSG:32650").to_crs("EPSG:4326").json)
    rows, columns = GRID.tile_shape
    found = [
        tile
        for row in range(-(-rows // side))
        for col in range(-(-columns // side))
        for tile in units.wanted(plan, units.cell(GRID, side, row, col))
    ]
    assert 0 < len(found) < rows * columns
    assert sorted(found, key=lambda t: (t.row, t.col)) == list(plan.tiles)
    with pytest.raises(PlanError, match="outside the grid"):
        units.cell(GRID, side, rows, 0)


def test_a_window_lies_where_it_does_in_what_is_around_it():
    tile, around = GRID.tile(3, 2), units.bounding([GRID.tile(2, 1), GRID.tile(3, 2)])
    assert units.within(tile, around, 10) == (slice(60, 120), slice(60, 120))
    assert units.within(tile, around, 30) == (slice(20, 40), slice(20, 40))


def test_the_side_follows_memory_reach_and_workers():
    large = small_store.plan(grid=replace(GRID, columns=1600, rows=1600, tile_px=480))
    needs = [units.unit_bytes(large, side) for side in range(1, 6)]
    assert needs == sorted(needs)
    assert units.unit_bytes(large, 4, threads=32) > needs[3]
    assert units.side(large, 1e12) == 4, "4 x 480 px is as far as it pays"
    for side in (1, 2, 3, 4):
        assert units.side(large, needs[side - 1]) == side
    assert units.side(large, 0) == 1
    assert units.side(large, 1e12, cells=25) == 4
    assert units.side(large, 1e12, cells=26) == 3
    assert units.side(small_store.plan(grid=GRID), 1e12) == 8, "never more than there are"


def test_full_blocks_of_dates_in_units_of_four_tiles_fit_the_default():
    one = small_store.plan().scenes[0]
    scenes = tuple(one.model_copy(update={"sensor": sensor}) for sensor in ("sentinel2", "landsat8") for _ in range(96))
    plan = small_store.plan(grid=Grid(32650, 600_000, 5_400_000, 1600, 1600, 480), scenes=scenes, options=Options())
    assert cube.input_length(plan, cube.SENTINEL2) == 48
    chosen = Settings()
    assert units.side(plan, chosen.unit_mb * 1e6, threads=chosen.io_threads) == 4
