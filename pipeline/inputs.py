"""What a method sees of one Landsat date: Landsat in the cube's frame, its pan, and the Sentinel-2 reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marstfn.bands import BANDS, FINE
from pipeline import cube
from pipeline.cube import CLEAR, FILL, SENTINEL2
from pipeline.days import KEPT, Days
from pipeline.grid import Window
from pipeline.harmonise import Harmonisation
from pipeline.pairing import Pair
from pipeline.plan import Plan, Scene
from pipeline.store import Store

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a method sees of one Landsat date, on the window; float32 reflectance, NaN = nothing."""

    s2: Array
    landsat: Array
    pan: Array | None
    age: NDArray[np.int16]
    """Landsat day minus reference day, FILL where there is no reference."""
    clear: NDArray[np.uint8]
    """Landsat's own mask, 30 m."""


class Reading:
    """The Landsat dates of a plan as methods see them, on one window of the lattice."""

    def __init__(
        self, plan: Plan, store: Store, window: Window, harmonisation: Harmonisation, pairs: Sequence[Pair], pan: bool
    ) -> None:
        self._window, self._harmonisation, self._pairs, self._pan = window, harmonisation, pairs, pan
        self._days = {
            g.name: Days(store, g, window, len(cube.group_scenes(plan, g)), KEPT if g is SENTINEL2 else 1)
            for g in cube.groups(plan)
        }
        self._order = {scene.items: index for index, scene in enumerate(plan.of("landsat8"))}

    def inputs(self, scene: Scene) -> Inputs:
        """The inputs of one Landsat date, read now; what lies under its cloud is NaN."""
        index = self._order[scene.items]
        clear = self._days["landsat8"].clear(index)
        s2, age = self._reference(self._pairs[index], clear == CLEAR)
        return Inputs(s2, self._landsat(index, clear == CLEAR), self._sharp(scene, index, clear == CLEAR), age, clear)

    def _landsat(self, index: int, known: NDArray[np.bool_]) -> Array:
        """(6, h, w), brought to the cube's one radiometric frame."""
        if not known.any():
            return np.full((len(BANDS), *known.shape), np.nan, np.float32)
        values = self._days["landsat8"].reflectance(index)
        values[:, ~known] = np.nan
        return self._harmonisation.apply(values, index)

    def _sharp(self, scene: Scene, index: int, known: NDArray[np.bool_]) -> Array | None:
        """(1, 2h, 2w), where the date has pan and a method takes it."""
        if not scene.pan_items or not self._pan:
            return None
        values = self._days["landsat8_pan"].reflectance(index)
        # what hides Landsat's bands hides its pan
        values[:, ~np.repeat(np.repeat(known, 2, 0), 2, 1)] = np.nan
        return values

    def _reference(self, pair: Pair, known: NDArray[np.bool_]) -> tuple[Array, NDArray[np.int16]]:
        """(6, H, W) of the first clear Sentinel-2 day of each pixel, and its age."""
        sentinel2, shape = self._days["sentinel2"], self._window.shape(FINE)
        s2 = np.full((len(BANDS), *shape), np.nan, np.float32)
        age = np.full(shape, FILL, np.int16)
        for day, gap in zip(pair.references, pair.days, strict=True):
            open_ = age == FILL
            if not known.any() or not open_.any():
                break
            take = open_ & sentinel2.seen(day)
            if take.any():
                s2[:, take] = sentinel2.values(day)[:, take] * np.float32(cube.SCALE)
                age[take] = gap
        return s2, age
