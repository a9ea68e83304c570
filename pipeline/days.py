"""Dates of one input group on one window, read a few at a time and kept for a while."""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import cube
from pipeline.cube import CLEAR, RUN, Group, unpack
from pipeline.grid import Window
from pipeline.store import INPUTS, Store

KEPT = 4
"""Runs kept: the references of a Landsat date lie in two or three neighbouring ones."""


class Days:
    """The stored dates of `group` on `window`; at most RUN * KEPT of them are in memory. Threads may share it."""

    def __init__(self, store: Store, group: Group, window: Window, dates: int, kept: int = KEPT) -> None:
        self._roi = window.roi(group.resolution)
        self._dates = dates
        self._bands = [cube.array(store, INPUTS, f"{group.name}/{band}") for band in group.bands]
        self._clear = cube.array(store, INPUTS, f"{group.name}/clear") if group.masked else None
        # one reads a run, the others wait for it: two dates prepared at once look at the same days
        self._reading = threading.RLock()
        self._values_of = lru_cache(maxsize=kept)(self._read_values)
        self._clear_of = lru_cache(maxsize=kept)(self._read_clear)

    def values(self, day: int) -> NDArray[np.int16]:
        """(bands, ny, nx) as stored."""
        with self._reading:
            out: NDArray[np.int16] = self._values_of(day // RUN)[:, day % RUN]
        return out

    def reflectance(self, day: int) -> NDArray[np.float32]:
        """(bands, ny, nx) reflectance, NaN where nothing is stored."""
        return unpack(self.values(day))

    def clear(self, day: int) -> NDArray[np.uint8]:
        """(ny, nx) nothing, clear or masked."""
        with self._reading:
            out: NDArray[np.uint8] = self._clear_of(day // RUN)[day % RUN]
        return out

    def seen(self, day: int) -> NDArray[np.bool_]:
        """(ny, nx) true where clear."""
        return np.asarray(self.clear(day) == CLEAR)

    def _read_values(self, run: int) -> NDArray[np.int16]:
        return np.stack([self._read(band, run) for band in self._bands])

    def _read_clear(self, run: int) -> NDArray[np.uint8]:
        if self._clear is None:
            raise ValueError("this group has no clear mask")
        return self._read(self._clear, run)

    def _read(self, array: Any, run: int) -> NDArray[Any]:
        dates = slice(run * RUN, min((run + 1) * RUN, self._dates))
        return cube.values(array, (dates, *self._roi))
