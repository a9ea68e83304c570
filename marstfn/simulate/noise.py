"""Smooth random fields over the plane, as functions of absolute metres."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from marstfn.simulate.hashing import F32, mixed, uniform

F64 = NDArray[np.float64]

# standard deviation of a cubic B-spline through uniform nodes, averaged over positions: sqrt(1/12) * 151/315
_SD = 0.138379


def field(key: int, x: F64, y: F64, scale: float) -> F32:
    """Random field of unit variance at columns `x` (nx,) and rows `y` (ny,), metres; (ny, nx) float32.

    A cubic B-spline surface through hashed nodes `scale` metres apart: smooth to the second derivative, bounded
    at +-3.6, the same at a point whatever else is asked for.
    """
    ix, wx = _taps(x, scale)
    iy, wy = _taps(y, scale)
    x_lo, y_lo = int(ix.min()), int(iy.min())
    columns = np.arange(x_lo, int(ix.max()) + 4)
    rows = np.arange(y_lo, int(iy.max()) + 4)
    nodes = uniform(mixed(key, rows[:, None], columns[None, :])) - np.float32(0.5)
    nodes *= np.float32(1 / _SD)
    ix, iy = ix - x_lo, iy - y_lo
    along = nodes[:, ix] * wx[0]
    for k in (1, 2, 3):
        along += nodes[:, ix + k] * wx[k]
    out: F32 = along[iy] * wy[0][:, None]
    for k in (1, 2, 3):
        out += along[iy + k] * wy[k][:, None]
    return out


def fractal(key: int, x: F64, y: F64, scales: tuple[float, ...], weights: tuple[float, ...]) -> F32:
    """Weighted sum of fields, one a scale, of unit variance; (ny, nx) float32."""
    norm = sum(w * w for w in weights) ** 0.5
    total = np.zeros((len(y), len(x)), np.float32)
    for k, (scale, weight) in enumerate(zip(scales, weights, strict=True)):
        # each octave has its own origin, or all would share nodes at the origin's lattice lines
        shift = 0.37 * scale * (k + 1)
        total += np.float32(weight / norm) * field(int(mixed(key, k)), x + shift, y - shift, scale)
    return total


def quantile(weights: tuple[float, ...], p: float) -> float:
    """Value that a `fractal` field of these weights stays below on a share `p` of the plane (0..1)."""
    table = _sorted(weights)
    at = min(max(p, 0.0), 1.0) * (len(table) - 1)
    k = min(int(at), len(table) - 2)
    return float(table[k] + (at - k) * (table[k + 1] - table[k]))


@lru_cache(maxsize=32)
def _sorted(weights: tuple[float, ...]) -> F64:
    # positions far apart and incommensurable with the scale are independent draws
    at: F64 = np.arange(256, dtype=np.float64) * 7919.3
    sample = fractal(20160229, at, -at, tuple(1000.0 for _ in weights), weights)
    table: F64 = np.sort(sample.ravel()).astype(np.float64)
    return table


def _taps(at: F64, scale: float) -> tuple[NDArray[np.int64], tuple[F32, F32, F32, F32]]:
    position = at / scale
    cell = np.floor(position)
    t = (position - cell).astype(np.float32)
    s = np.float32(1) - t
    sixth = np.float32(1 / 6)
    t2, s2 = t * t, s * s
    return cell.astype(np.int64), (
        s2 * s * sixth,
        (np.float32(4) - np.float32(6) * t2 + np.float32(3) * t2 * t) * sixth,
        (np.float32(4) - np.float32(6) * s2 + np.float32(3) * s2 * s) * sixth,
        t2 * t * sixth,
    )
