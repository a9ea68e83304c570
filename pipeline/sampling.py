"""The pixels on which Landsat is checked: clear in both sensors, at 90 m, with Sentinel-2 before and after."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from marstfn.bands import BANDS, RATIO
from pipeline import bandpass, cube
from pipeline.cube import CLEAR
from pipeline.days import Days
from pipeline.grid import Tile
from pipeline.neighbours import nearest, reachable, sides
from pipeline.plan import Plan
from pipeline.registered import Registered
from pipeline.sensors import to_msi
from pipeline.shifts import SceneShift
from pipeline.store import Store

Array = NDArray[np.float32]

BOTH_SIDES = 16
"""Days on either side within which clear Sentinel-2 before and after is interpolated to the Landsat date."""
ONE_SIDE = 2
"""Days within which Sentinel-2 on one side only may stand for the Landsat date."""
TILES = 12
"""Tiles sampled, spread evenly: bounds the work whatever the area."""
SAMPLE = 6000
"""Pixels sampled per Landsat date over all tiles."""
BOUNDS = ("BOTH_SIDES", "ONE_SIDE", "TILES", "SAMPLE")
"""What a sample depends on."""


def sampled(tiles: Sequence[Tile]) -> list[Tile]:
    """At most TILES of the tiles, evenly spread over their order."""
    if len(tiles) <= TILES:
        return list(tiles)
    return [tiles[round(i * (len(tiles) - 1) / (TILES - 1))] for i in range(TILES)]


def sample_tile(
    plan: Plan, store: Store, tile: Tile, count: int, shifts: Sequence[SceneShift] = ()
) -> dict[int, Array]:
    """By Landsat index (n, 4, 6), n <= count: Landsat at the cube's band-pass, Sentinel-2 at 30 m of the nearest clear
    day before and after, and how far (days, after is negative) each lies, as (days before, days after, 0, ...).

    Where one side is missing its values are NaN and its days infinite. Scenes that `shifts` reject are left out, those
    it moves are moved.
    """
    landsat8 = Registered(plan, store, tile, shifts)
    sentinel2 = Days(store, cube.SENTINEL2, tile, len(plan.of("sentinel2")), 3)

    # neighbouring Landsat dates lean on the same Sentinel-2 days
    @lru_cache(maxsize=2 * BOTH_SIDES)
    def coarse(day: int) -> Array:
        seen = sentinel2.seen(day)
        if not seen.any():
            return np.full((len(BANDS), *tile.shape(30)), np.nan, np.float32)
        values = sentinel2.reflectance(day)
        values[:, ~seen] = np.nan
        bands, h, w = values.shape
        return smooth(values.reshape(bands, h // RATIO, RATIO, w // RATIO, RATIO).mean((2, 4), dtype=np.float32))

    given = bandpass.of_landsat(plan)
    out = {}
    for index, gaps in enumerate(reachable(plan, BOTH_SIDES)):
        if not gaps or not (landsat8.clear(index) == CLEAR).any():
            continue
        own = landsat8.reflectance(index)
        bands = given[index] if given else bandpass.HLS
        own = smooth(to_msi(own, bands) if plan.options.bandpass else own)
        known = np.asarray(np.isfinite(own).all(axis=0))
        (before, a), (after, b) = (nearest(coarse, side, known) for side in sides(gaps))
        rows, cols = np.nonzero(known & (np.isfinite(a) & np.isfinite(b) | (np.minimum(a, b) <= ONE_SIDE)))
        if not len(rows):
            continue
        picked = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))
        rows, cols = rows[picked], cols[picked]
        days = np.zeros((len(BANDS), len(rows)), np.float32)
        days[0], days[1] = a[rows, cols], b[rows, cols]
        values = [layer[:, rows, cols] for layer in (own, before, after)]
        out[index] = np.stack([*values, days]).transpose(2, 0, 1)
    return out


def smooth(values: Array) -> Array:
    """Mean of 3 x 3 pixels, NaN where one is: at 90 m the sensors' different sharpness and a shift of some metres no
    longer look like a gain."""
    out = np.full_like(values, np.nan)
    h, w = values.shape[1:]
    total = sum(values[:, i : h - 2 + i, j : w - 2 + j] for i in range(3) for j in range(3))
    out[:, 1:-1, 1:-1] = total / np.float32(9)
    return out
