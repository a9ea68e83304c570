"""A robust line between two sensors' views of the same land, and the bounds within which it is one of calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GAIN = (0.85, 1.15)
"""A fitted gain outside is no calibration error: the land changed, or a cloud was missed."""
OFFSET = 0.03
"""Largest offset, in reflectance."""
LEAST_PIXELS = 150
"""Fewer tell nothing: 150 are an area of 400 m by 400 m."""
LEAST_CORRELATION = 0.7
TRIM = 2.5
"""Robust standard deviations beyond which a pixel has changed rather than been miscalibrated."""
ROUNDS = 6
BOUNDS = ("GAIN", "OFFSET", "LEAST_PIXELS", "LEAST_CORRELATION", "TRIM", "ROUNDS")
"""What a fit depends on."""


@dataclass(frozen=True, slots=True)
class Line:
    """y = gain * x + offset of one band, with what speaks for it."""

    gain: float
    offset: float
    correlation: float
    pixels: int
    at: float
    """Median of x: where the line is best known."""
    kept: NDArray[np.bool_]
    chance: tuple[float, float] = (0.0, 0.0)
    """Variance of gain and shift by the number of pixels alone."""

    @property
    def shift(self) -> float:
        """y - x at the median of x."""
        return (self.gain - 1) * self.at + self.offset


def line(x: NDArray[np.float64], y: NDArray[np.float64]) -> Line:
    """Robust line through (x, y), reflectance.

    Reduced major axis (ratio of the spreads), for noise sits on both sides and least squares of one on the other would
    flatten the gain; pixels that changed are trimmed by their distance from the line, round by round.
    """
    keep = np.ones(len(x), bool)
    gain, offset = 1.0, float(np.median(y - x)) if len(x) else 0.0
    for _ in range(ROUNDS):
        residual = y - (gain * x + offset)
        keep = np.abs(residual - np.median(residual[keep])) <= TRIM * max(spread(residual[keep]), 1e-5)
        if keep.sum() < 3 or min(x[keep].std(), y[keep].std()) < 1e-6:
            return Line(gain, offset, 0.0, int(keep.sum()), float(np.median(x)), keep)
        gain = float(y[keep].std() / x[keep].std())
        offset = float(y[keep].mean() - gain * x[keep].mean())
    correlation = float(np.corrcoef(x[keep], y[keep])[0, 1])
    count = int(keep.sum())
    chance = gain**2 * (1 - correlation**2) / count, float((y - gain * x)[keep].var()) / count
    return Line(gain, offset, correlation, count, float(np.median(x[keep])), keep, chance)


def refused(fitted: Line) -> str:
    """Why a fit must not be used; empty if it may."""
    if fitted.pixels < LEAST_PIXELS:
        return f"{fitted.pixels} pixels left of the changes, {LEAST_PIXELS} needed"
    if fitted.correlation < LEAST_CORRELATION:
        return f"correlation {fitted.correlation:.2f} below {LEAST_CORRELATION}"
    if not GAIN[0] <= fitted.gain <= GAIN[1]:
        return f"gain {fitted.gain:.3f} outside {GAIN[0]} to {GAIN[1]}"
    if abs(fitted.offset) > OFFSET or abs(fitted.shift) > OFFSET:
        return f"offset {fitted.offset:.4f}, {fitted.shift:.4f} at the median, beyond {OFFSET}"
    return ""


def spread(values: NDArray[np.float64], centre: float | None = None) -> float:
    """Standard deviation of a normal distribution with the same median distance from the centre (default: median)."""
    middle = float(np.median(values)) if centre is None else centre
    return 1.4826 * float(np.median(np.abs(values - middle)))
