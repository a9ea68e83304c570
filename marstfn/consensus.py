"""The shift of a scene out of the shifts measured on its windows, and how far they agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marstfn.registration import Measure

ROUNDS = 25
TOLERANCE = 3.0
"""Standard errors beyond which a window counts less among the others."""
BOUNDS = ("ROUNDS", "TOLERANCE")
"""What the shift of a scene depends on besides those of its windows."""


@dataclass(frozen=True, slots=True)
class Pooled:
    """The shift of a scene from all its windows."""

    east: float
    north: float
    error: float
    """Standard error in metres, of either axis on average: by the windows' own errors or by how far they disagree,
    whichever is more."""
    pixels: int
    windows: int
    apart: tuple[float, ...]
    """Metres by which each window's shift differs from the scene's, in the order given."""

    @property
    def length(self) -> float:
        return math.hypot(self.east, self.north)


def pooled(measures: Sequence[Measure]) -> Pooled:
    """The shift that the windows of a scene agree on: their mean weighted by their covariances; windows far off the
    others count less (Cauchy's weights). Raises ValueError without a window."""
    if not measures:
        raise ValueError("no window, no shift")
    each = np.array([(m.east, m.north) for m in measures])
    weights = np.stack([np.linalg.inv(_matrix(m.covariance)) for m in measures])
    at = np.median(each, axis=0)
    for _ in range(ROUNDS):
        off = each - at
        trust = 1 / (1 + np.einsum("ni,nij,nj->n", off, weights, off) / TOLERANCE**2)
        total = np.tensordot(trust, weights, 1)
        at = np.linalg.solve(total, np.einsum("n,nij,nj->i", trust, weights, each))
    off = each - at
    covariance = np.linalg.inv(total)
    variance = float(np.trace(covariance)) / 2
    count = len(measures)
    if count > 2:
        pulls = np.einsum("n,nij,nj->ni", trust, weights, off)
        between = covariance @ (pulls.T @ pulls) @ covariance * count / (count - 2)
        variance = max(variance, float(np.trace(between)) / 2)
    pixels = sum(m.pixels for m in measures)
    apart = tuple(float(v) for v in np.hypot(off[:, 0], off[:, 1]))
    return Pooled(float(at[0]), float(at[1]), math.sqrt(variance), pixels, count, apart)


def _matrix(entries: tuple[float, float, float]) -> NDArray[np.float64]:
    xx, xy, yy = entries
    return np.array([[xx, xy], [xy, yy]])
