"""Landsat against Sentinel-2 on the ground: the shift of each scene measured, and what is done about it decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marstfn import consensus
from marstfn import registration as measuring
from marstfn.bands import BANDS, FINE, RATIO
from marstfn.consensus import pooled
from marstfn.registration import LEAST_PIXELS, Measure, Refusal, measure
from pipeline import cube
from pipeline.days import Days
from pipeline.grid import CELL, Tile, Window
from pipeline.neighbours import between, nearest, reachable, sides
from pipeline.plan import Plan
from pipeline.shifts import Decision, SceneShift
from pipeline.store import Store

Array = NDArray[np.float32]
Found = Mapping[int, Measure | Refusal]
"""By Landsat index: what one window says of each date."""

SIDE = 80
"""Cells of 60 m along a window: 4.8 km, in which a shift is known to decimetres and still one number."""
WINDOWS = 12
"""Windows measured, spread evenly: bounds the work whatever the area."""
DAYS = 45
"""Days within which Sentinel-2 before and after may stand for the Landsat date: farther off the land no longer looks
alike often enough."""
TRIED = 6
"""Sentinel-2 days tried on each side for pixels not clear yet."""
LEAST_SHIFT = 2.0
"""Metres under which a shift is left alone, as it is under two standard errors: a second resampling and the jitter of
Sentinel-2 itself cost as much."""
MOST_SHIFT = 15.0
"""Metres, half a Landsat pixel, beyond which a scene is not trusted: its terrain correction failed."""
MOST_ERROR = 3.0
"""Metres of standard error beyond which a scene's shift counts as not measured."""
SURE_PIXELS = 2000
"""Unchanged pixels without which no scene is rejected: 1.8 km2."""
SURE_WINDOWS = 4
"""Windows without which no scene is rejected for what they say of each other."""
BOUNDS = (
    "SIDE", "WINDOWS", "DAYS", "TRIED", "LEAST_SHIFT", "MOST_SHIFT", "MOST_ERROR", "SURE_PIXELS", "SURE_WINDOWS",
)  # fmt: skip
"""What the decisions depend on besides the measures."""


def bounds() -> list[Any]:
    """Everything that measures and decisions depend on besides pixels."""
    modules: tuple[tuple[Any, tuple[str, ...]], ...] = (
        (measuring, measuring.BOUNDS),
        (consensus, consensus.BOUNDS),
    )
    return [*(getattr(m, n) for m, names in modules for n in names), *(globals()[n] for n in BOUNDS)]


def windows(plan: Plan) -> dict[tuple[int, int], Window]:
    """By (row, column) of the tile that stands for it: at most WINDOWS windows of about SIDE cells, evenly spread over
    the plan's tiles: several small tiles make one, of a large tile it is the middle."""
    per_tile = plan.grid.tile_px * FINE // CELL
    edges = []
    for count in plan.grid.tile_shape:
        parts = max(1, round(count * per_tile / max(SIDE, per_tile)))
        edges.append([round(k * count / parts) for k in range(parts + 1)])
    out: dict[tuple[int, int], Window] = {}
    taken: dict[tuple[int, int], tuple[int, int]] = {}
    for tile in plan.tiles:
        (row0, row1), (col0, col1) = (_part(e, k) for e, k in zip(edges, (tile.row, tile.col), strict=True))
        if (row0, col0) not in taken:
            first, last = plan.grid.tile(row0, col0), plan.grid.tile(row1 - 1, col1 - 1)
            taken[row0, col0] = tile.row, tile.col
            rows, cols = _middle(first.row0, last.row1), _middle(first.col0, last.col1)
            out[tile.row, tile.col] = Window(plan.grid, *rows, *cols)
    if len(out) <= WINDOWS:
        return out
    keys = list(out)
    return {k: out[k] for k in (keys[round(i * (len(keys) - 1) / (WINDOWS - 1))] for i in range(WINDOWS))}


def _part(edges: Sequence[int], at: int) -> tuple[int, int]:
    return next((lo, hi) for lo, hi in pairwise(edges) if lo <= at < hi)


def _middle(lo: int, hi: int) -> tuple[int, int]:
    """The middle SIDE cells of more than half as many again."""
    spare = hi - lo - SIDE if hi - lo > 1.5 * SIDE else 0
    return lo + spare // 2, hi - (spare - spare // 2)


def measure_tile(plan: Plan, store: Store, tile: Tile) -> Found:
    """What the window of `tile` says of each Landsat date: its shift against Sentinel-2 interpolated to the date."""
    window = windows(plan)[tile.row, tile.col]
    landsat8 = Days(store, cube.LANDSAT8, window, len(plan.of("landsat8")), 1)
    sentinel2 = Days(store, cube.SENTINEL2, window, len(plan.of("sentinel2")))

    # neighbouring Landsat dates lean on the same Sentinel-2 days
    @lru_cache(maxsize=2 * TRIED)
    def clear(day: int) -> Array:
        seen = sentinel2.seen(day)
        if not seen.any():
            return np.full((len(BANDS), *seen.shape), np.nan, np.float32)
        values = sentinel2.reflectance(day)
        values[:, ~seen] = np.nan
        return values

    out: dict[int, Measure | Refusal] = {}
    for index, gaps in enumerate(reachable(plan, DAYS)):
        known = landsat8.seen(index)
        if known.sum() < LEAST_PIXELS:
            out[index] = Refusal(f"{int(known.sum())} clear pixels, {LEAST_PIXELS} needed")
            continue
        if not gaps:
            out[index] = Refusal(f"no Sentinel-2 within {DAYS} days")
            continue
        values = landsat8.reflectance(index)
        values[:, ~known] = np.nan
        wanted = np.repeat(np.repeat(known, RATIO, 0), RATIO, 1)
        (before, a), (after, b) = (nearest(clear, side[:TRIED], wanted) for side in sides(gaps))
        reference = between(before, after, a, b).astype(np.float32)
        reference[:, ~(np.isfinite(a) | np.isfinite(b))] = np.nan
        out[index] = measure(values, reference)
    return out


def decide(plan: Plan, measures: Sequence[Found]) -> tuple[SceneShift, ...]:
    """What is done about each Landsat date of the plan, from what its windows say.

    A scene is moved where its shift is beyond doubt, and rejected on strong evidence alone: a shift of more than
    MOST_SHIFT by two standard errors, or most of its windows that far off the rest. Otherwise it is left as it is.
    """
    out = []
    for index, scene in enumerate(plan.of("landsat8")):
        said = [m[index] for m in measures if index in m]
        found = [s for s in said if isinstance(s, Measure)]
        if found:
            out.append(_decided(index, scene.label, found))
        else:
            reasons = Counter(s.reason for s in said if isinstance(s, Refusal))
            why = reasons.most_common(1)[0][0] if reasons else "no window"
            out.append(SceneShift(index, scene.label, "unmeasured", why))
    return tuple(out)


def _decided(index: int, label: str, found: Sequence[Measure]) -> SceneShift:
    shift = pooled(found)
    length, error = shift.length, shift.error
    torn = sum(far > MOST_SHIFT for far in shift.apart) / len(found)
    sure = shift.pixels >= SURE_PIXELS
    measured = f"{length:.1f} m (standard error {error:.1f} m)"
    decision: Decision = "corrected"
    if sure and len(found) >= SURE_WINDOWS and torn >= 0.5:
        decision, reason = "rejected", f"{torn:.0%} of {len(found)} windows lie over {MOST_SHIFT:g} m off the others"
    elif error > MOST_ERROR:
        decision, reason = "unmeasured", f"standard error {error:.1f} m above {MOST_ERROR:g} m"
    elif length - 2 * error > MOST_SHIFT:
        decision = "rejected" if sure else "unmeasured"
        reason = f"{measured}, beyond {MOST_SHIFT:g} m"
        reason += "" if sure else f", on {shift.pixels} pixels of {SURE_PIXELS} needed"
    elif length < max(LEAST_SHIFT, 2 * error):
        decision, reason = "left", measured
    else:
        reason = measured
    east, north, error = (round(v, 3) for v in (shift.east, shift.north, error))
    return SceneShift(index, label, decision, reason, east, north, error, shift.pixels, shift.windows)
