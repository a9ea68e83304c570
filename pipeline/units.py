"""Reading units: squares of tiles that are read together, so that a source block is fetched and decoded once for all.

A tile alone reads blocks of 5 to 15 km for its 4.8 km. Units say how the inputs are read, never what is stored: retry,
resume and the ledger know tiles only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from odc.geo.geom import Geometry

from pipeline import cloudmask, cube
from pipeline.cube import Group
from pipeline.grid import CELL, Grid, Tile, Window
from pipeline.plan import Plan
from pipeline.settings import THREADS

REACH = 1920
"""Side in 10 m pixels beyond which a unit is not grown: what is then read twice is a half of the least with blocks of
512 px at 10 m, and less with smaller ones."""

TOGETHER = 384_000_000
"""Bytes of bands that are asked for in one load; at least one band is, however large. Twice as much may be held."""

LOADS = 3
"""Loads under way at once."""

SCRATCH = 11
"""Bytes of a pixel that a reading thread holds beside what it leaves: numbers as stored and as float32, the marks of
what is nothing, GDAL's blocks. Measured on two cores: 10.5 with 8 threads, 7.3 with 16, 4.6 with 24, which do not all
compute at once there."""


@dataclass(frozen=True, slots=True)
class Cell(Tile):
    """A square of side x side tiles of a grid as one tile of a coarser grid: the place of a reading unit."""

    side: int
    fine: Grid

    @property
    def name(self) -> str:
        """The first tile and how many there are along a side: `r004c008x4`."""
        return f"{self.fine.tile(self.row * self.side, self.col * self.side).name}x{self.side}"


def cell(grid: Grid, side: int, row: int, col: int) -> Cell:
    """The cell in row `row` and column `col` of the squares of `side` tiles. Raises PlanError outside of the grid."""
    coarse = replace(grid, tile_px=grid.tile_px * side)
    tile = coarse.tile(row, col)
    return Cell(coarse, tile.row0, tile.row1, tile.col0, tile.col1, row, col, side, grid)


def wanted(plan: Plan, place: Cell) -> tuple[Tile, ...]:
    """The tiles of a cell that a run of the plan makes: those of Plan.tiles, found without asking for all of them."""
    grid = plan.grid
    part = replace(
        grid,
        left=grid.left + place.col0 * CELL,
        top=grid.top - place.row0 * CELL,
        columns=place.col1 - place.col0,
        rows=place.row1 - place.row0,
    )
    tiles = part.tiles(Geometry(plan.aoi, "EPSG:4326"))
    return tuple(grid.tile(place.row * place.side + t.row, place.col * place.side + t.col) for t in tiles)


def bounding(tiles: Sequence[Tile]) -> Window:
    """The smallest window over the tiles, at least one."""
    return Window(
        tiles[0].grid,
        min(t.row0 for t in tiles),
        max(t.row1 for t in tiles),
        min(t.col0 for t in tiles),
        max(t.col1 for t in tiles),
    )


def within(window: Window, around: Window, resolution: int) -> tuple[slice, slice]:
    """(y, x) slices of `window` in an array of `resolution` metres that covers `around`."""
    inner, outer = window.roi(resolution), around.roi(resolution)
    y, x = (slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
    return y, x


def divided(grid: Grid, todo: Iterable[Tile], side: int) -> tuple[list[Cell], list[Tile]]:
    """The cells of `side` tiles that are read as units, and the tiles that are read by themselves, both in order.

    A cell is read as the bounding window of what is left of it; where that is less than half of the window, or a
    single tile, its tiles are read by themselves.
    """
    by_cell: dict[tuple[int, int], list[Tile]] = {}
    for tile in todo:
        by_cell.setdefault((tile.row // side, tile.col // side), []).append(tile)
    cells, alone = [], []
    for (row, col), tiles in by_cell.items():
        if side > 1 and len(tiles) > 1 and 2 * len(tiles) >= sum(1 for _ in grid.under(bounding(tiles))):
            cells.append(cell(grid, side, row, col))
        else:
            alone += tiles
    return cells, sorted(alone, key=lambda t: (t.row, t.col))


def bands_at_once(group: Group, dates: int, window: Window) -> int:
    """Bands of a group that are read in one load, 1 .. all of them."""
    ny, nx = window.shape(group.resolution)
    return max(1, min(len(group.bands), TOGETHER // max(1, 2 * dates * ny * nx)))


def unit_bytes(plan: Plan, side: int, threads: int = THREADS) -> int:
    """Bytes that reading a unit of `side` x `side` tiles of the plan holds at most, the process itself not counted.

    The load that is being written and those under way, the clear mask and what it is made of, and what `threads`
    reading threads work on; of the group that needs most.
    """
    span = plan.grid.tile_px * side // 6
    window = Window(plan.grid, 0, min(span, plan.grid.rows), 0, min(span, plan.grid.columns))
    most = 0
    for group in cube.groups(plan):
        dates = cube.input_length(plan, group)
        pixels = math.prod(window.shape(group.resolution))
        load = 2 * dates * pixels * bands_at_once(group, dates, window)
        # what is written and what is read meanwhile
        need = max(2 * load, min((1 + LOADS) * load, 2 * TOGETHER)) + threads * SCRATCH * pixels
        if group.masked:
            # clear of this block, that of the next and its flags: of one byte at 10 m, of twice two at 15 m for 30 m
            flags = dates * pixels * (1 if group is cube.SENTINEL2 else 16)
            need += 2 * dates * pixels + max(0, flags - load)
            if plan.options.cloud_mask != "product":
                need += cloudmask.DATES * 3 * 2 * pixels
        most = max(most, need)
    return most


def side(plan: Plan, room: float, *, cells: int = 1, threads: int = THREADS) -> int:
    """Tiles along the side of a reading unit: as many as `room` bytes and REACH allow, fewer where the area would give
    less than `cells` units; at least 1."""
    rows, columns = plan.grid.tile_shape
    found = max(1, REACH // plan.grid.tile_px)
    while found > 1 and (unit_bytes(plan, found, threads) > room or -(-rows // found) * -(-columns // found) < cells):
        found -= 1
    return min(found, max(rows, columns))
