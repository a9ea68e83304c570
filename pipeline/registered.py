"""Landsat dates of a window as every later step sees them: moved onto Sentinel-2, rejected scenes masked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from marstfn.resampling import moved
from pipeline import cube
from pipeline.cube import CLEAR, MASKED, Group
from pipeline.days import Days
from pipeline.grid import CELL, Window
from pipeline.plan import Plan
from pipeline.shifts import SceneShift
from pipeline.store import Store

Array = NDArray[np.float32]

MARGIN = 2
"""Cells read around a window of which a date is moved: the kernel reaches three pixels of 30 m and the shift."""


class Registered:
    """The stored Landsat dates on `window`; `shifts` empty: as they are stored."""

    def __init__(self, plan: Plan, store: Store, window: Window, shifts: Sequence[SceneShift] = ()) -> None:
        self._shifts = tuple(shifts)
        self._wide = window.padded(MARGIN) if any(s.off for s in shifts) else window
        self._at = window.row0 - self._wide.row0, window.col0 - self._wide.col0
        self._cells = window.row1 - window.row0, window.col1 - window.col0
        dates = len(plan.of("landsat8"))
        groups = [g for g in cube.groups(plan) if g is not cube.SENTINEL2]
        self._days = {g.name: Days(store, g, self._wide, dates, 1) for g in groups}

    def clear(self, index: int) -> NDArray[np.uint8]:
        """(h, w) nothing, clear or masked, 30 m: the mask of a moved date is its own nearest neighbour."""
        return self._mask(index)[self._roi(cube.LANDSAT8)]

    def reflectance(self, index: int) -> Array:
        """(6, h, w) OLI reflectance, NaN where not clear."""
        return self._bands(index, cube.LANDSAT8, self._mask(index) == CLEAR)

    def pan(self, index: int) -> Array:
        """(1, 2h, 2w), NaN where Landsat's bands are not clear: what hides them hides the pan."""
        return self._bands(index, cube.LANDSAT8_PAN, np.repeat(np.repeat(self._mask(index) == CLEAR, 2, 0), 2, 1))

    def _mask(self, index: int) -> NDArray[np.uint8]:
        stored = self._days[cube.LANDSAT8.name].clear(index)
        if self._shifts and self._shifts[index].decision == "rejected":
            return np.where(stored == CLEAR, np.uint8(MASKED), stored)
        return stored

    def _bands(self, index: int, group: Group, known: NDArray[np.bool_]) -> Array:
        values = self._days[group.name].reflectance(index)
        values[:, ~known] = np.nan
        off = self._shifts[index].off if self._shifts else None
        if off is not None:
            values = moved(values, -off[0], -off[1], group.resolution)
        return values[:, *self._roi(group)]

    def _roi(self, group: Group) -> tuple[slice, slice]:
        """The window in what is read around it."""
        per_cell = CELL // group.resolution
        (top, left), (height, width) = self._at, self._cells
        return slice(top * per_cell, (top + height) * per_cell), slice(left * per_cell, (left + width) * per_cell)
