"""Clear Sentinel-2 before and after a Landsat date, near enough in time to say what the land was like on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marstfn.bands import BANDS
from pipeline.pairing import day_gap
from pipeline.plan import Plan

Array = NDArray[np.float32]


def between(before: Any, after: Any, a: Any, b: Any) -> NDArray[np.float64]:
    """Linear in time between two days; the nearer one where the other is missing."""
    before, after, a, b = (np.asarray(v, np.float64) for v in (before, after, a, b))
    both = np.isfinite(a) & np.isfinite(b)
    with np.errstate(invalid="ignore"):
        weight = np.where(both, b / np.maximum(a + b, 1e-6), np.where(np.isfinite(a), 1.0, 0.0))
    parts = np.where(weight > 0, before, 0) * weight, np.where(weight < 1, after, 0) * (1 - weight)
    return np.asarray(parts[0] + parts[1])


def reachable(plan: Plan, days: int) -> list[dict[int, int]]:
    """For each Landsat date the Sentinel-2 days within `days` and the days between (positive: before it).

    A day too near to any Landsat date to be its reference is nobody's here: the mean of the year would carry it over.
    """
    least, most = plan.options.min_reference_days, min(plan.options.max_reference_days, days)
    landsat, sentinel2 = ([s.time for s in plan.of(sensor)] for sensor in ("landsat8", "sentinel2"))
    barred = {j for j, t in enumerate(sentinel2) if any(abs(day_gap(when, t)) < least for when in landsat)}
    gaps = [{j: day_gap(when, t) for j, t in enumerate(sentinel2) if j not in barred} for when in landsat]
    return [{j: gap for j, gap in near.items() if abs(gap) <= most} for near in gaps]


def sides(gaps: dict[int, int]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(day, distance) before, the same day included, and after; the nearest first."""
    ordered = sorted(gaps.items(), key=lambda entry: abs(entry[1]))
    return [(j, gap) for j, gap in ordered if gap >= 0], [(j, -gap) for j, gap in ordered if gap < 0]


def nearest(
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
