"""Patches, the network's windows: where they lie, what fills their holes, how they are blended."""

from __future__ import annotations

import numpy as np

from marstfn.bands import RATIO
from marstfn.baselines.degrade import Array, upsample
from marstfn.baselines.holes import closed

STEP = 6
"""Patches start at multiples of 6 px (60 m), where 10 m, 15 m and 30 m pixels share corners."""

VISIBLE = (0.2, 0.4, 0.4)
"""Shares of blue, green and red in the stand-in for a missing pan pixel."""


def starts(length: int, patch: int, stride: int) -> tuple[int, ...]:
    """Offsets of patches of side `patch` along `length` px (all multiples of 6), the last one flush with the end."""
    for name, value in (("length", length), ("patch", patch), ("stride", stride)):
        if value < STEP or value % STEP:
            raise ValueError(f"{name} of {value} px is not a positive multiple of {STEP} px")
    if length < patch:
        raise ValueError(f"{length} px hold no patch of {patch} px; enlarge the area to at least {patch * 10} m")
    if stride > patch:
        raise ValueError(f"stride {stride} px leaves gaps between patches of {patch} px")
    last = length - patch
    return (*range(0, last, stride), last)


def covering(lo: int, hi: int, offsets: tuple[int, ...], patch: int) -> tuple[int, ...]:
    """Those of `offsets` whose patch meets the pixels [lo, hi), in order."""
    return tuple(s for s in offsets if s < hi and s + patch > lo)


def blend(patch: int, overlap: int) -> Array:
    """(patch, patch) weights in (0, 1], float32: about 0 in the outer pixels, rising over `overlap` px, then 1."""
    if not 0 <= overlap < patch:
        raise ValueError(f"overlap of {overlap} px does not fit a patch of {patch} px")
    distance = np.minimum(np.arange(patch), np.arange(patch)[::-1]) + 0.5
    # convolutions see zeros beyond the patch: its outermost pixels give way altogether where another patch has them
    margin = min(3.0, overlap / 4)
    ramp = np.clip((distance - margin) / max(overlap - 2 * margin, 1e-6), 0, 1) if overlap else np.ones(patch)
    line = ramp * ramp * (3 - 2 * ramp) * (1 - 1e-3) + 1e-3
    weights: Array = np.outer(line, line).astype(np.float32)
    return weights


def fill_holes(s2: Array, landsat: Array, pan: Array | None = None) -> tuple[Array, Array, Array | None]:
    """The same arrays without NaN: s2 (6,H,W), landsat (6,H/3,W/3), pan (1,2H/3,2W/3) or None; float32.

    A hole of Landsat takes the mean of the reference there; a hole of the reference takes enlarged Landsat; a hole of
    pan takes the visible bands of Landsat. Where neither sensor saw anything, the nearest Landsat pixel serves (0 in an
    empty patch): such pixels only keep the arithmetic finite, and the caller masks them.
    """
    hole, coarse_hole = np.isnan(s2).any(0), np.isnan(landsat).any(0)
    filled = landsat
    if coarse_hole.any():
        reference = known_mean(np.where(hole, np.nan, s2))
        filled = np.where(coarse_hole, reference, landsat)
        filled, _ = closed(filled)
    fine = np.where(hole, upsample(filled), s2) if hole.any() else s2
    sharp = pan
    if pan is not None and np.isnan(pan).any():
        visible = np.tensordot(np.asarray(VISIBLE, np.float32), filled[:3], 1)[None]
        sharp = np.where(np.isnan(pan), upsample(visible, 2), pan)
    return (
        np.asarray(fine, np.float32),
        np.asarray(filled, np.float32),
        None if sharp is None else np.asarray(sharp, np.float32),
    )


def known_mean(fine: Array) -> Array:
    """3x3 mean of the pixels that are known; NaN where none is."""
    bands, height, width = fine.shape
    cells = fine.reshape(bands, height // RATIO, RATIO, width // RATIO, RATIO)
    known = ~np.isnan(cells)
    count = known.sum((2, 4))
    total = np.where(known, cells, 0).sum((2, 4), dtype=np.float64)
    mean: Array = np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
    return mean
