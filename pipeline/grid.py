"""The lattice a cube lives on: 60 m cells of one UTM zone, cut into square tiles."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo import CRS, wh_
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry

from pipeline.errors import PlanError

CELL = 60
"""Cell side in metres: lcm(10, 15, 20, 30), so that all geoboxes of a grid share corners."""

RESOLUTIONS = (10, 15, 20, 30, 60)


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of cells of a grid; rows run south, columns east, ends exclusive."""

    grid: Grid
    row0: int
    row1: int
    col0: int
    col1: int

    def roi(self, resolution: int) -> tuple[slice, slice]:
        """(y, x) slices of this window in the grid's array of `resolution` metres."""
        k = _per_cell(resolution)
        return slice(self.row0 * k, self.row1 * k), slice(self.col0 * k, self.col1 * k)

    def shape(self, resolution: int) -> tuple[int, int]:
        """(ny, nx) in pixels of `resolution` metres."""
        k = _per_cell(resolution)
        return (self.row1 - self.row0) * k, (self.col1 - self.col0) * k

    def geobox(self, resolution: int) -> GeoBox:
        """GeoBox of this window with pixels of `resolution` metres."""
        ny, nx = self.shape(resolution)
        left = self.grid.left + self.col0 * CELL
        top = self.grid.top - self.row0 * CELL
        affine = Affine(resolution, 0, left, 0, -resolution, top)
        return GeoBox(wh_(nx, ny), affine, CRS(f"EPSG:{self.grid.epsg}"))

    def padded(self, cells: int) -> Window:
        """This window grown by `cells` on every side, cut at the grid's edge."""
        return Window(
            self.grid,
            max(0, self.row0 - cells),
            min(self.grid.rows, self.row1 + cells),
            max(0, self.col0 - cells),
            min(self.grid.columns, self.col1 + cells),
        )


@dataclass(frozen=True, slots=True)
class Tile(Window):
    """The unit of work, of retry and of storage: one shard a variable and time block."""

    row: int
    col: int

    @property
    def name(self) -> str:
        return f"r{self.row:03d}c{self.col:03d}"


@dataclass(frozen=True, slots=True)
class Grid:
    """A UTM lattice of 60 m cells, corners at multiples of 60 m from 0, cut into tiles.

    `left`, `top`: upper-left corner in metres; `columns`, `rows`: extent in cells;
    `tile_px`: tile side in 10 m pixels, a multiple of 6. Tiles at the east and south edge may be smaller.
    """

    epsg: int
    left: int
    top: int
    columns: int
    rows: int
    tile_px: int = 480

    def __post_init__(self) -> None:
        if self.left % CELL or self.top % CELL:
            raise PlanError(f"grid corner ({self.left}, {self.top}) is not on the {CELL} m lattice; use Grid.covering")
        if self.tile_px % 6 or self.tile_px < 60:
            raise PlanError(f"tile side {self.tile_px} px is not a multiple of 6 px of at least 60; choose e.g. 480")
        if self.columns < 1 or self.rows < 1:
            raise PlanError(
                f"grid of {self.columns} x {self.rows} cells is empty; the area must hold at least one cell"
            )

    @classmethod
    def covering(cls, area: Geometry, *, tile_px: int = 480, epsg: int | None = None) -> Grid:
        """Smallest grid over `area` (any CRS), in the UTM zone of its centroid unless `epsg` says otherwise."""
        if epsg is None:
            lon, lat = area.to_crs("EPSG:4326").centroid.coords[0]
            epsg = CRS.utm(lon, lat).epsg
            assert epsg is not None
        box = _projected(area, epsg).boundingbox
        # a corner within 1 mm of the lattice is on it: reprojection leaves that much
        left = math.floor((box.left + 1e-3) / CELL) * CELL
        top = math.ceil((box.top - 1e-3) / CELL) * CELL
        right = math.ceil((box.right - 1e-3) / CELL) * CELL
        bottom = math.floor((box.bottom + 1e-3) / CELL) * CELL
        return cls(epsg, left, top, (right - left) // CELL, (top - bottom) // CELL, tile_px)

    @property
    def window(self) -> Window:
        """The whole grid as a window."""
        return Window(self, 0, self.rows, 0, self.columns)

    def shape(self, resolution: int) -> tuple[int, int]:
        """(ny, nx) in pixels of `resolution` metres."""
        return self.window.shape(resolution)

    def geobox(self, resolution: int) -> GeoBox:
        """GeoBox of the whole grid with pixels of `resolution` metres (10, 15, 20, 30 or 60)."""
        return self.window.geobox(resolution)

    @property
    def tile_shape(self) -> tuple[int, int]:
        """(rows, columns) of tiles."""
        side = self.tile_px // 6
        return -(-self.rows // side), -(-self.columns // side)

    def tile(self, row: int, col: int) -> Tile:
        """The tile in tile row `row` and tile column `col`."""
        n_rows, n_cols = self.tile_shape
        if not (0 <= row < n_rows and 0 <= col < n_cols):
            raise PlanError(f"tile ({row}, {col}) lies outside the grid of {n_rows} x {n_cols} tiles")
        side = self.tile_px // 6
        return Tile(
            self,
            row * side,
            min((row + 1) * side, self.rows),
            col * side,
            min((col + 1) * side, self.columns),
            row,
            col,
        )

    def under(self, window: Window) -> Iterator[Tile]:
        """The tiles that share a cell with `window`, in row-major order."""
        side = self.tile_px // 6
        for row in range(window.row0 // side, -(-window.row1 // side)):
            for col in range(window.col0 // side, -(-window.col1 // side)):
                yield self.tile(row, col)

    def tiles(self, area: Geometry | None = None) -> Iterator[Tile]:
        """All tiles in row-major order, or those that meet `area` (any CRS)."""
        n_rows, n_cols = self.tile_shape
        every = [self.tile(row, col) for row in range(n_rows) for col in range(n_cols)]
        if area is None:
            yield from every
        else:
            met = _meeting(every, _projected(area, self.epsg))
            yield from (tile for tile, there in zip(every, met, strict=True) if there)


def _projected(area: Geometry, epsg: int) -> Geometry:
    # an edge straight in degrees bulges in UTM, 35 m over 40 km: pieces of half a kilometre bend by centimetres
    geographic = area.crs is not None and area.crs.geographic
    return area.to_crs(f"EPSG:{epsg}", resolution=0.005 if geographic else 500.0)


def _meeting(tiles: Sequence[Tile], area: Geometry) -> NDArray[np.bool_]:
    """Whether each tile shares ground, not only an edge, with `area` in the grid's projection."""
    grid = tiles[0].grid
    west, south, east, north = CELL * np.array([(t.col0, t.row1, t.col1, t.row0) for t in tiles], np.float64).T
    boxes = shapely.box(grid.left + west, grid.top - south, grid.left + east, grid.top - north)
    shapely.prepare(area.geom)
    # only tiles at the rim need their intersection computed
    inside: NDArray[np.bool_] = shapely.contains_properly(area.geom, boxes)
    rim = shapely.intersects(area.geom, boxes) & ~inside
    inside[rim] = shapely.area(shapely.intersection(boxes[rim], area.geom)) > 0
    return inside


def _per_cell(resolution: int) -> int:
    if resolution not in RESOLUTIONS:
        raise PlanError(f"resolution {resolution} m does not divide the {CELL} m cell; use one of {RESOLUTIONS}")
    return CELL // resolution
