"""What a method sees of one Landsat date: Landsat in the cube's frame, its pan, and the Sentinel-2 reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from marstfn.bands import BANDS, FINE
from marstfn.reference import Reference
from pipeline import cube
from pipeline.cube import CLEAR, SENTINEL2
from pipeline.days import KEPT, Days
from pipeline.grid import Window
from pipeline.harmonise import Harmonisation
from pipeline.pairing import Pair
from pipeline.plan import Plan, Scene
from pipeline.registered import Registered
from pipeline.store import Store

Array = NDArray[np.float32]

SCALE = np.float32(cube.SCALE)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a method sees of one Landsat date, on the window; float32 reflectance, NaN = nothing."""

    reference: Reference
    landsat: Array
    pan: Array | None
    clear: NDArray[np.uint8]
    """Landsat's own mask, 30 m."""


class Reading:
    """The Landsat dates of a plan as methods see them, on one window of the lattice."""

    def __init__(
        self, plan: Plan, store: Store, window: Window, harmonisation: Harmonisation, pairs: Sequence[Pair]
    ) -> None:
        self._window, self._harmonisation, self._pairs = window, harmonisation, pairs
        self._sentinel2 = Days(store, SENTINEL2, window, len(plan.of("sentinel2")), KEPT)
        self._landsat8 = Registered(plan, store, window, harmonisation.shifts)
        self._order = {scene.items: index for index, scene in enumerate(plan.of("landsat8"))}

    def inputs(self, scene: Scene, *, both: bool, pan: bool) -> Inputs:
        """The inputs of one Landsat date, read now; what lies under its cloud is NaN.

        `both`: whether Sentinel-2 of both sides of the date is wanted; else only the nearest of each pixel is read.
        """
        index = self._order[scene.items]
        clear = self._landsat8.clear(index)
        known = clear == CLEAR
        reference = self._reference(self._pairs[index], both) if known.any() else self._nothing()
        sharp = self._landsat8.pan(index) if pan and scene.pan_items else None
        return Inputs(reference, self._landsat(index, known), sharp, clear)

    def mask(self, day: int) -> NDArray[np.uint8]:
        """(H, W) nothing, clear or masked, of one Sentinel-2 day, by its place along that sensor's own axis."""
        return self._sentinel2.clear(day)

    def bands(self, day: int) -> NDArray[np.int16]:
        """(6, H, W) of one Sentinel-2 day as it is stored."""
        return self._sentinel2.values(day)

    def observed(self, day: int) -> Array:
        """(6, H, W) of one Sentinel-2 day, by its place along that sensor's own axis, NaN where it is not clear."""
        values = self._sentinel2.reflectance(day)
        values[:, ~self._sentinel2.seen(day)] = np.nan
        return values

    def _landsat(self, index: int, known: NDArray[np.bool_]) -> Array:
        """(6, h, w), brought to the cube's one radiometric frame."""
        if not known.any():
            return np.full((len(BANDS), *known.shape), np.nan, np.float32)
        return self._harmonisation.apply(self._landsat8.reflectance(index), index)

    def _reference(self, pair: Pair, both: bool) -> Reference:
        """On either side of the date the first clear day of each pixel, in the order of the pair.

        Masks are read first: of the reflectance, twelve times their size, only the days that serve a pixel.
        """
        days, chosen = self._serving(pair)
        shape = days.shape[1:]
        later = days[1] < days[0]
        images = [np.full((len(BANDS), *shape), np.nan, np.float32) for _ in range(2 if both else 1)]
        # in the order of the axis: a few neighbouring days are read at once
        for k in np.argsort(pair.references, kind="stable"):
            side = int(pair.days[k] < 0)
            take = chosen[side] == k
            if not both:
                take &= later if side else ~later
            if take.any():
                _take(images[side if both else 0], self._sentinel2.values(pair.references[k]), take, SCALE)
        # one image stands for both sides where only the nearer one of each pixel is asked for
        return Reference(images[0], images[-1], days[0], days[1])

    def _serving(self, pair: Pair) -> tuple[Array, NDArray[np.int16]]:
        """(2, H, W) days to the reference before and after, inf where there is none, and its place in the pair."""
        shape = self._window.shape(FINE)
        days = np.full((2, *shape), np.inf, np.float32)
        chosen = np.full((2, *shape), -1, np.int16)
        for k, (day, gap) in enumerate(zip(pair.references, pair.days, strict=True)):
            side = int(gap < 0)
            open_ = chosen[side] < 0
            if open_.any():
                take = open_ & self._sentinel2.seen(day)
                days[side][take], chosen[side][take] = abs(gap), k
        return days, chosen

    def _nothing(self) -> Reference:
        shape = self._window.shape(FINE)
        empty, never = np.full((len(BANDS), *shape), np.nan, np.float32), np.full(shape, np.inf, np.float32)
        return Reference(empty, empty, never, never)


@njit(nogil=True, cache=True)
def _take(image, values, where, scale):  # type: ignore[no-untyped-def] # pragma: no cover (compiled)
    bands, height, width = image.shape
    for b in range(bands):
        for y in range(height):
            for x in range(width):
                if where[y, x]:
                    image[b, y, x] = np.float32(values[b, y, x]) * scale
