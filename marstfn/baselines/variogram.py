"""How fast a coarse image loses its likeness with distance, and the point model that lies behind it.

The steps of area-to-point kriging before its weights (Kyriakidis 2004; Goovaerts 2008; as Wang, Shi, Atkinson & Zhao
2015, Remote Sensing of Environment 166:191, use them). Distances are in fine pixels, a coarse pixel being a square of
`s` of them on a side:

* experimental semivariogram along rows and columns, `g(h) = mean (R(i) - R(i+h))^2 / 2`, h = 1..H coarse pixels;
* exponential model `gamma(d) = c (1 - exp(-d / a))` by least squares at d = s h;
* regularisation of a point model over two square pixels h apart, `gA(h)` = its mean over their s^2 x s^2 pairs of fine
  pixels, less the same mean within one pixel;
* deconvolution: of the point models `c' = (m_c + r i) c`, `a' = (m_a + r j) a`, i and j = 1..20, the one whose
  regularised form lies nearest to the fitted model at the H lags.

Where the papers are silent: pairs with an unknown pixel are left out; lags without a pair, as in an image smaller than
H, take no part; a residual without any variation (or of a single pixel) has no model, and gets a range of one coarse
pixel, which fixes the weights of kriging and has nothing to multiply. For a given range the best sill is a quotient,
so that the fit is a search along one line, from which no start can lead astray; ranges are sought from a tenth of a
coarse pixel, below which the model is a constant, to 30 times the last lag, beyond which it is a straight line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

Floats = NDArray[np.floating[Any]]

SHORTEST, LONGEST = 0.1, 30.0
"""Ends of the search for the range: in coarse pixels, and in lengths of the last lag."""


@dataclass(frozen=True, slots=True)
class Exponential:
    """gamma(d) = sill (1 - exp(-d / range)); `range` in fine pixels, > 0, `sill` in squares of the values, >= 0."""

    sill: float
    range: float

    def __call__(self, distance: NDArray[Any]) -> Floats:
        """Semivariance at distances in fine pixels, of the same shape."""
        out: Floats = self.sill * -np.expm1(-np.asarray(distance, np.float64) / self.range)
        return out


@dataclass(frozen=True, slots=True)
class Grid:
    """Candidates of the deconvolution, in multiples of the fitted sill and range: `steps` of `rate` above the least."""

    sill_min: float = 1.0
    range_min: float = 0.5
    rate: float = 0.1
    steps: int = 20

    def __post_init__(self) -> None:
        if self.steps < 1 or self.rate < 0 or min(self.sill_min, self.range_min) + self.rate <= 0:
            raise ValueError(f"{self} has no candidate above 0; give positive multiples and at least one step")

    def multiples(self, least: float) -> Floats:
        """(steps,) from least + rate on."""
        out: Floats = least + self.rate * np.arange(1, self.steps + 1)
        return out


def semivariogram(image: NDArray[Any], lags: int) -> Floats:
    """(b, h, w), NaN unknown -> (b, lags) at 1..lags pixels, rows and columns together; NaN without a pair."""
    known = np.isfinite(image)
    values = np.where(known, image, 0.0)
    out = np.full((len(image), lags), np.nan)
    for lag in range(1, lags + 1):
        total, count = np.zeros(len(image)), np.zeros(len(image))
        for ahead, behind in (
            (np.s_[:, lag:], np.s_[:, :-lag]),
            (np.s_[:, :, lag:], np.s_[:, :, :-lag]),
        ):
            both = known[ahead] & known[behind]
            total += (np.square(values[ahead] - values[behind]) * both).sum((1, 2))
            count += both.sum((1, 2))
        np.divide(total, 2 * count, out=out[:, lag - 1], where=count > 0)
    return out


def fitted(gamma: NDArray[Any], s: int) -> Exponential:
    """Least-squares exponential model of `gamma` (lags,) at 1..lags coarse pixels of `s` fine ones; NaN lags are left
    out. Without two lags or any variation, a sill of 0 and a range of `s`."""
    found = np.flatnonzero(np.isfinite(gamma))
    if len(found) < 2 or not gamma[found].max() > 0:
        return Exponential(0.0, float(s))
    distance, wanted = s * (found + 1.0), np.asarray(gamma[found], np.float64)

    def shape(log_range: Any) -> Floats:
        out: Floats = -np.expm1(-distance / np.exp(np.asarray(log_range))[..., None])
        return out

    def best(log_range: Any) -> Floats:
        curve = shape(log_range)
        out: Floats = (curve * wanted).sum(-1) / (curve * curve).sum(-1)
        return out

    def misfit(log_range: Any) -> Floats:
        curve = best(log_range)[..., None] * shape(log_range)
        out: Floats = np.square(curve / wanted.max() - wanted / wanted.max()).sum(-1)
        return out

    tried = np.linspace(np.log(SHORTEST * s), np.log(LONGEST * distance[-1]), 64)
    first = int(np.argmin(misfit(tried)))
    low, high = tried[max(first - 1, 0)], tried[min(first + 1, len(tried) - 1)]
    log_range = minimize_scalar(misfit, bounds=(low, high), method="bounded", options={"xatol": 1e-9}).x
    return Exponential(float(best(log_range)), float(np.exp(log_range)))


def regularised(ranges: NDArray[Any], lags: int, s: int) -> Floats:
    """(n,) ranges in fine pixels of point models of sill 1 -> (n, lags): what squares of s x s px show of them."""
    # pairs of pixels of two squares, by the step between them: as many as the squares' overlap at that step
    steps = np.arange(1 - s, s)
    share = (s - np.abs(steps)) / s**2
    along = s * np.arange(lags + 1)[:, None, None] + steps[:, None]
    distance = np.hypot(along, steps)
    weight = share[:, None] * share
    point = -np.expm1(-distance / np.asarray(ranges, np.float64)[:, None, None, None])
    mean = (weight * point).sum((-2, -1))
    out: Floats = mean[:, 1:] - mean[:, :1]
    return out


def deconvolved(model: Exponential, lags: int, s: int, grid: Grid) -> Exponential:
    """The point model of the grid whose regularised form is nearest to `model` at 1..lags coarse pixels."""
    sills, ranges = model.sill * grid.multiples(grid.sill_min), model.range * grid.multiples(grid.range_min)
    seen = sills[:, None, None] * regularised(ranges, lags, s)
    distance = np.square(seen - model(s * np.arange(1, lags + 1))).sum(-1)
    i, j = np.unravel_index(int(np.argmin(distance)), distance.shape)
    return Exponential(float(sills[i]), float(ranges[j]))


__all__ = ["Exponential", "Grid", "deconvolved", "fitted", "regularised", "semivariogram"]
