"""The pixels on which Landsat is checked: clear in both sensors, at 90 m, with Sentinel-2 before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marstfn.bands import BANDS, RATIO
from pipeline import cube
from pipeline.days import Days
from pipeline.grid import Tile
from pipeline.pairing import day_gap
from pipeline.plan import Plan
from pipeline.sensors import to_msi
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


def sample_tile(plan: Plan, store: Store, tile: Tile, count: int) -> dict[int, Array]:
    """By Landsat index (n, 4, 6), n <= count: Landsat at the cube's band-pass, Sentinel-2 at 30 m of the nearest clear
    day before and after, and how far (days, after is negative) each lies, as (days before, days after, 0, ...).

    Where one side is missing its values are NaN and its days infinite.
    """
    landsat8 = Days(store, cube.LANDSAT8, tile, len(plan.of("landsat8")), 1)
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

    out = {}
    reachable = _reachable(plan)
    for index, gaps in enumerate(reachable):
        known = landsat8.seen(index)
        if not known.any() or not gaps:
            continue
        own = landsat8.reflectance(index)
        own[:, ~known] = np.nan
        own = smooth(to_msi(own) if plan.options.bandpass else own)
        known = np.asarray(np.isfinite(own).all(axis=0))
        (before, a), (after, b) = (_nearest(coarse, side, known) for side in _sides(gaps))
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


def between(before: Any, after: Any, a: Any, b: Any) -> NDArray[np.float64]:
    """Linear in time between two days; the nearer one where the other is missing."""
    before, after, a, b = (np.asarray(v, np.float64) for v in (before, after, a, b))
    both = np.isfinite(a) & np.isfinite(b)
    with np.errstate(invalid="ignore"):
        weight = np.where(both, b / np.maximum(a + b, 1e-6), np.where(np.isfinite(a), 1.0, 0.0))
    parts = np.where(weight > 0, before, 0) * weight, np.where(weight < 1, after, 0) * (1 - weight)
    return np.asarray(parts[0] + parts[1])


def _reachable(plan: Plan) -> list[dict[int, int]]:
    """For each Landsat date the Sentinel-2 days near enough and the days between (positive: before it).

    A day too near to any Landsat date to be its reference is nobody's here: the mean of the year would carry it over.
    """
    least, most = plan.options.min_reference_days, min(plan.options.max_reference_days, BOTH_SIDES)
    landsat, sentinel2 = ([s.time for s in plan.of(sensor)] for sensor in ("landsat8", "sentinel2"))
    barred = {j for j, t in enumerate(sentinel2) if any(abs(day_gap(when, t)) < least for when in landsat)}
    gaps = [{j: day_gap(when, t) for j, t in enumerate(sentinel2) if j not in barred} for when in landsat]
    return [{j: gap for j, gap in near.items() if abs(gap) <= most} for near in gaps]


def _sides(gaps: dict[int, int]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(day, distance) before, the same day included, and after; the nearest first."""
    ordered = sorted(gaps.items(), key=lambda entry: abs(entry[1]))
    return [(j, gap) for j, gap in ordered if gap >= 0], [(j, -gap) for j, gap in ordered if gap < 0]


def _nearest(
    coarse: Callable[[int], Array], side: Sequence[tuple[int, int]], known: NDArray[np.bool_]
) -> tuple[Array, Array]:
    """(6, h, w) of the nearest clear day of each pixel, and its distance in days (inf where there is none)."""
    value = np.full((len(BANDS), *known.shape), np.nan, np.float32)
    away = np.full(known.shape, np.inf, np.float32)
    for j, distance in side:
        open_ = known & ~np.isfinite(away)
        if not open_.any():
            break
        day = coarse(j)
        take = open_ & np.isfinite(day).all(0)
        value[:, take], away[take] = day[:, take], distance
    return value, away
