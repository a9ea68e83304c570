"""Patches cut from a window, and a window put together from blended patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from marstfn.baselines.degrade import Array
from marstfn.patches import fill_holes

Offset = tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Patches:
    """n patches of one window as a method is given them, float32."""

    offsets: tuple[Offset, ...]
    """Row and column of each in the window, 10 m pixels."""
    s2: Array
    """(n, 6, p, p)."""
    landsat: Array
    """(n, 6, p/3, p/3)."""
    pan: Array | None
    """(n, 1, 2p/3, 2p/3)."""
    context: Array | None
    """(n, 8, p, p)."""
    hole: NDArray[np.bool_] | None
    """(n, p, p) where Sentinel-2 has nothing; None where it has something everywhere."""
    fill: Array | None
    """(n, 6, p, p) what stands in the place of a prediction under a hole; None with `hole`."""

    def __len__(self) -> int:
        return len(self.offsets)


def cut(
    s2: Array,
    landsat: Array,
    pan: Array | None,
    context: Array | None,
    offsets: Sequence[Offset],
    patch: int,
    *,
    holes: bool = False,
) -> Patches:
    """Patches of side `patch` px at `offsets` (multiples of 6) of s2 (6,H,W), landsat (6,H/3,W/3), pan (1,2H/3,2W/3),
    context (8,H,W). What is NaN is filled patch by patch, so that two windows that share a patch hold the same in it;
    with `holes` it is left, and filled only in `fill`.
    """
    count, coarse, sharp = len(offsets), patch // 3, patch * 2 // 3
    hole = np.asarray(np.isnan(s2).any(axis=0))
    dark = np.asarray(np.isnan(landsat).any(axis=0))
    blank = None if pan is None else np.asarray(np.isnan(pan).any(axis=0))
    fine = np.empty((count, len(s2), patch, patch), np.float32)
    rough = np.empty((count, len(landsat), coarse, coarse), np.float32)
    keen = None if pan is None else np.empty((count, len(pan), sharp, sharp), np.float32)
    around = None if context is None else np.empty((count, len(context), patch, patch), np.float32)
    empty = np.empty((count, patch, patch), bool) if hole.any() else None
    for k, (r, c) in enumerate(offsets):
        at = slice(r, r + patch), slice(c, c + patch)
        rough_at = slice(r // 3, r // 3 + coarse), slice(c // 3, c // 3 + coarse)
        keen_at = slice(r * 2 // 3, r * 2 // 3 + sharp), slice(c * 2 // 3, c * 2 // 3 + sharp)
        given = s2[:, *at], landsat[:, *rough_at], None if pan is None else pan[:, *keen_at]
        dim = hole[at].any() or dark[rough_at].any() or (blank is not None and blank[keen_at].any())
        if dim and not holes:
            given = fill_holes(*given)
        fine[k], rough[k] = given[0], given[1]
        if keen is not None:
            keen[k] = given[2]
        if around is not None and context is not None:
            around[k] = context[:, *at]
        if empty is not None:
            empty[k] = hole[at]
    fill = fine if empty is not None else None
    if holes and empty is not None:
        fill = fine.copy()
        for broken in np.flatnonzero(empty.any((1, 2))):
            fill[broken] = fill_holes(fine[broken], rough[broken])[0]
    return Patches(tuple(offsets), fine, rough, keen, around, empty, fill)


def blended(
    parts: Sequence[Array],
    offsets: Sequence[Offset],
    shape: tuple[int, int],
    weights: Array,
    hole: NDArray[np.bool_] | None = None,
    fill: Array | None = None,
) -> Array:
    """(bands, *shape) float32 from predicted patches (n, bands, p, p), in `parts` that follow one another, at `offsets`
    by `weights` (p, p); NaN where no patch lies.

    Under `hole` (n,p,p) stands `fill` (n,6,p,p), and 0 in a seventh band. A pixel adds its patches in their order, in
    float64, so that it does not depend on what else lies in the window.
    """
    bands = parts[0].shape[1]
    total, norm = np.zeros((bands, *shape), np.float64), np.zeros(shape, np.float64)
    at = np.asarray(offsets, np.int64).reshape(-1, 2)
    low = 0
    for part in parts:
        high = low + len(part)
        empty = np.zeros((0, 0, 0), bool) if hole is None else hole[low:high]
        instead = np.zeros((0, 0, 0, 0), np.float32) if fill is None else fill[low:high]
        _add(total, norm, np.ascontiguousarray(part, np.float32), at[low:high], weights, empty, instead)
        low = high
    out = np.empty(total.shape, np.float32)
    _divide(total, norm, out)
    return out


@njit(nogil=True, cache=True)
def _add(total, norm, values, offsets, weights, hole, fill):  # type: ignore[no-untyped-def] # pragma: no cover (compiled)
    count, bands, height, width = values.shape
    some = hole.shape[0] > 0
    for i in range(count):
        top, left = offsets[i]
        for y in range(height):
            for x in range(width):
                norm[top + y, left + x] += weights[y, x]
        for b in range(bands):
            for y in range(height):
                for x in range(width):
                    value = values[i, b, y, x]
                    if some and hole[i, y, x]:
                        value = fill[i, b, y, x] if b < fill.shape[1] else np.float32(0)
                    total[b, top + y, left + x] += weights[y, x] * value


@njit(nogil=True, cache=True)
def _divide(total, norm, out):  # type: ignore[no-untyped-def] # pragma: no cover (compiled)
    bands, height, width = total.shape
    for b in range(bands):
        for y in range(height):
            for x in range(width):
                out[b, y, x] = total[b, y, x] / norm[y, x] if norm[y, x] > 0 else np.nan
