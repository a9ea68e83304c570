"""What a pixel sees: Gaussian point spread functions, applied while the 5 m lattice is thinned to a sensor's grid."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise

import numpy as np

from marstfn.simulate.hashing import F32

CELL = 5.0
"""Side of a lattice cell in metres."""

REACH = 4.0
"""Half-width of a kernel in standard deviations."""


@lru_cache(maxsize=256)
def kernel(sigma: float, shift: float) -> tuple[int, tuple[float, ...]]:
    """Weights of lattice cells around a pixel centre that lies on a cell edge, and the first cell's index.

    `sigma`: standard deviation in metres (> 0); `shift`: how far (metres) the look falls beside the pixel centre.
    Cell k spans [5k, 5k + 5) from the centre. Weights are the Gaussian's integral over each cell, multiples of
    2**-20 that sum to exactly 1, hence energy is preserved and every machine has the same weights.
    """
    first = math.floor((shift - REACH * sigma) / CELL)
    last = math.ceil((shift + REACH * sigma) / CELL)
    edges = [math.erf((k * CELL - shift) / (sigma * 2**0.5)) / 2 for k in range(first, last + 1)]
    raw = [b - a for a, b in pairwise(edges)]
    total = sum(raw)
    counts = [round(w / total * 2**20) for w in raw]
    counts[counts.index(max(counts))] += 2**20 - sum(counts)
    return first, tuple(c * 2.0**-20 for c in counts)


def look(
    surface: F32, top: int, left: int, step: int, shape: tuple[int, int], sigma: float, shift: tuple[float, float]
) -> F32:
    """Reflectance (ny, nx) float32 seen by pixels of `step` cells through a Gaussian of `sigma` metres.

    `surface` (h, w): lattice cells, rows southward; `top`, `left`: cell edge on which the first pixel's centre lies;
    `shift`: (east, north) metres by which the sensor looks beside the place it reports. Raises ValueError when
    the surface does not reach far enough around the pixels.
    """
    ny, nx = shape
    row0, row_weights = kernel(sigma, -shift[1])
    col0, col_weights = kernel(sigma, shift[0])
    rows, columns = top + row0, left + col0
    if (
        rows < 0
        or columns < 0
        or rows + (ny - 1) * step + len(row_weights) > surface.shape[0]
        or columns + (nx - 1) * step + len(col_weights) > surface.shape[1]
    ):
        raise ValueError(
            f"surface of {surface.shape} cells does not reach {REACH} x {sigma} m around {ny} x {nx} pixels; "
            "render a larger margin"
        )
    down = np.zeros((ny, surface.shape[1]), np.float32)
    for k, weight in enumerate(row_weights):
        if weight:
            start = rows + k
            down += np.float32(weight) * surface[start : start + (ny - 1) * step + 1 : step]
    seen = np.zeros((ny, nx), np.float32)
    for k, weight in enumerate(col_weights):
        if weight:
            start = columns + k
            seen += np.float32(weight) * down[:, start : start + (nx - 1) * step + 1 : step]
    return seen


def averaged(surface: F32) -> F32:
    """Mean over 2 x 2 cells: (h, w) of 5 m to (h / 2, w / 2) of 10 m, float32."""
    rows = surface[0::2] + surface[1::2]
    return np.asarray((rows[:, 0::2] + rows[:, 1::2]) * np.float32(0.25))


def doubled(coarse: F32) -> F32:
    """Bilinear to half the pixel size, (h, w) to (2h, 2w) float32; the outermost pixels repeat the edge."""
    return np.ascontiguousarray(_doubled_down(np.ascontiguousarray(_doubled_down(coarse).T)).T)


def _doubled_down(coarse: F32) -> F32:
    padded = np.concatenate([coarse[:1], coarse, coarse[-1:]])
    out = np.empty((2 * len(coarse), coarse.shape[1]), np.float32)
    out[0::2] = np.float32(0.25) * padded[:-2] + np.float32(0.75) * padded[1:-1]
    out[1::2] = np.float32(0.75) * padded[1:-1] + np.float32(0.25) * padded[2:]
    return out
