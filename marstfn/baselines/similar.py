"""The mean of a pixel's change and that of the pixels most like it: the window search of FSDAF's last step.

Zhu, Helmer, Gao, Liu, Chen, Lefsky 2016, Remote Sensing of Environment 172:165-177, section 2.2.6; the spectral
distance enters the weight as in the authors' public code line, not in the paper's text, which has the distance on the
ground alone.

Candidates are the pixels of the window of 2w + 1 px that differ from the middle by less than a threshold in every band.
Spectral distance S_k = sum_b |F1(k,b) - F1(0,b)| / |F1(0,b)|; the nearest in spectrum are kept; their weight is the
inverse of (1 + d_k / w)(1 + S_k), d_k the distance on the ground in pixels.

Decided here: the middle belongs to its own candidates even where the threshold is 0; reflectance in the denominator
counts as DARKEST at least, since dark water comes out at 0 and below; of pixels that differ equally the nearer is kept,
and of those as near the first in reading order. A pixel without data is no candidate.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit
from numpy.typing import NDArray

from marstfn.baselines.degrade import Array

DARKEST = 1e-3
"""Reflectance below which relative differences say nothing: a tenth of what atmospheric correction leaves in doubt."""

ROWS = 16
"""Rows of one block: small enough that two threads end together, large enough that handing out costs nothing."""


def smoothed(
    guide: Array, values: Array, threshold: NDArray[np.float64], *, window: int, similar: int, threads: int = 0
) -> Array:
    """Of `values` (b,H,W) the weighted mean over each pixel and those most `similar` to it in `guide` (b,H,W), float32.

    `threshold` (b) is what a candidate may differ by, in `guide`'s unit; `window` the half side in pixels, 1 or more;
    `similar` the number kept, 1 or more, the pixel itself among them; `threads` 0 means all processors, and changes no
    bit. Pixels with NaN in either image stay NaN and serve no other.
    """
    bands, height, width = guide.shape
    known = np.isfinite(guide).all(0) & np.isfinite(values).all(0)
    around = ((window, window), (window, window), (0, 0))
    # a rim of NaN spares the inner loop every question of where the image ends
    padded = np.pad(np.where(known, guide, np.nan).transpose(1, 2, 0), around, constant_values=np.nan)
    row = np.arange(-window, window + 1)
    dy, dx = (a.ravel() for a in np.meshgrid(row, row, indexing="ij"))
    order = np.argsort(dy**2 + dx**2, kind="stable")
    steps = (dy * (width + 2 * window) + dx)[order].astype(np.int64)
    nearness = 1 + np.sqrt(dy**2 + dx**2)[order] / window
    pixels = np.ascontiguousarray(padded.reshape(-1, bands), np.float32)
    moved = np.ascontiguousarray(np.pad(values.transpose(1, 2, 0), around).reshape(-1, bands), np.float32)
    out = np.full((height, width, bands), np.nan, np.float32)

    def block(first: int) -> None:
        last = min(first + ROWS, height)
        _rows(pixels, moved, threshold.astype(np.float64), steps, nearness, window, similar, first, last, out)

    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        list(pool.map(block, range(0, height, ROWS)))
    return np.ascontiguousarray(out.transpose(2, 0, 1))


@njit(nogil=True, cache=True)
def _rows(  # type: ignore[no-untyped-def]
    pixels, moved, threshold, steps, nearness, margin, similar, first, last, out
):  # pragma: no cover (compiled)
    _, width, bands = out.shape
    chosen = np.empty(similar, np.int64)
    differs = np.empty(similar, np.float64)
    value = np.empty(bands, np.float64)
    scale = np.empty(bands, np.float64)
    total = np.empty(bands, np.float64)
    for y in range(first, last):
        for x in range(width):
            middle = (y + margin) * (width + 2 * margin) + x + margin
            if np.isnan(pixels[middle, 0]):
                continue
            for b in range(bands):
                value[b] = pixels[middle, b]
                scale[b] = 1.0 / max(abs(value[b]), DARKEST)
            chosen[0], differs[0] = 0, 0.0
            found = 1
            for k in range(1, len(steps)):
                worst = np.inf if found < similar else differs[found - 1]
                if worst == 0.0:
                    break
                here = middle + steps[k]
                apart = 0.0
                for b in range(bands):
                    off = abs(pixels[here, b] - value[b])
                    # written so that NaN fails; the sum only grows, so it may end early
                    if not off < threshold[b] or apart >= worst:
                        apart = np.inf
                        break
                    apart += off * scale[b]
                if not apart < worst:
                    continue
                at = found if found < similar else found - 1
                while at > 0 and differs[at - 1] > apart:
                    if at < similar:
                        differs[at], chosen[at] = differs[at - 1], chosen[at - 1]
                    at -= 1
                differs[at], chosen[at] = apart, k
                found = min(found + 1, similar)
            total[:] = 0.0
            weights = 0.0
            for n in range(found):
                weight = 1.0 / (nearness[chosen[n]] * (1.0 + differs[n]))
                weights += weight
                for b in range(bands):
                    total[b] += weight * moved[middle + steps[chosen[n]], b]
            for b in range(bands):
                out[y, x, b] = total[b] / weights
