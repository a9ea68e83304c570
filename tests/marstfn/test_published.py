"""What others have published of their methods on data that are here, and how far ours agree."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat

from marstfn.baselines.atprk import coefficients

MATCH = 16
"""Days between a Landsat date of the pixel and the Sentinel-2 date it is paired with, at most."""
TUNING = 4.685
"""Of Tukey's biweight (Holland & Welsch 1977)."""


def pixel(shared: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[Any]]:
    """The pixel's clear pairs by Landsat date, reflectance: Landsat (n, 6), Sentinel-2 (n, 6), days between them, NaN
    where there is no partner; and the published fits, one for each of two clusters of pairs."""
    folder = shared / "data" / "ref-tif-pixel"
    series = loadmat(folder / "T18TXM_r03007c09955.mat", squeeze_me=True)["data"]
    seen, days = {}, {}
    for sensor, bands in (("L", 6), ("S", 10)):
        rows = series[f"line_t_{sensor}"][()].astype(float)
        clear = (rows[:, -1] < 2) & ((rows[:, :bands] > 0) & (rows[:, :bands] < 10_000)).all(1)
        seen[sensor], days[sensor] = rows[clear, :bands] * 1e-4, series[f"sdate_{sensor}"][()][clear].astype(int)
    # Sentinel-2's columns of the six bands: B02 B03 B04, and after the red edge and B08 B11 B12 B8A
    fine = seen["S"][:, [0, 1, 2, 9, 7, 8]]
    apart = np.abs(days["L"][:, None] - days["S"])
    partner = fine[apart.argmin(1)]
    between = np.where(apart.min(1) <= MATCH, apart.min(1), np.nan)
    fits = loadmat(folder / "TIF_coefficient_r03007c09955.mat", squeeze_me=True)["TIF_coefficient"]
    assert np.array_equal(fits[0]["cluster"][:, 0], days["L"])
    return seen["L"], partner, between, list(fits)


def biweight(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Intercept and slope, reweighted by Tukey's biweight of residuals scaled for leverage until they stand still."""
    design = np.sqrt(weight)[:, None] * np.stack([np.ones_like(x), x], 1)
    leverage = np.square(np.linalg.qr(design)[0]).sum(1)
    a = coefficients(x[None], y[None], weight)[0]
    for _ in range(50):
        residual = (y - a[0] - a[1] * x) / np.sqrt(1 - leverage)
        # of a line through two points, two residuals are none
        spread = np.median(np.sort(np.abs(residual))[1:]) / 0.6745
        trust = np.square(np.maximum(1 - np.square(residual / (TUNING * spread)), 0))
        before, a = a, coefficients(x[None], y[None], weight * trust)[0]
        if (np.abs(a - before) < 1.5e-8 * np.maximum(np.abs(a), np.abs(before))).all():
            break
    return a


@pytest.mark.shared
def test_a_pixels_regression_of_sentinel_2_on_landsat_is_the_published_one(shared: Path) -> None:
    # Song et al., TIF: two k-means clusters of the clear pairs, in each and band a robust line, pairs weighted by
    # 1 / (1 + days between). The clusters are random and taken as published; the pairs and all else follow.
    landsat, sentinel, between, fits = pixel(shared)
    cluster = fits[0]["cluster"][:, 1]
    assert np.array_equal(np.isnan(cluster), np.isnan(between))
    for k, fit in enumerate(fits, 1):
        mine = cluster == k
        assert mine.sum() == fit["NumofObs"] == (10, 24)[k - 1]
        x, y, weight = landsat[mine].T, sentinel[mine].T, 1 / (1 + between[mine])
        np.testing.assert_allclose(np.stack([x.mean(1), y.mean(1)], 1), fit["Centroid"] * 1e-4, rtol=1e-12)
        robust = np.asarray([biweight(*pair, weight) for pair in zip(x, y, strict=True)])
        np.testing.assert_allclose(robust[:, 1], fit["Slopes"], rtol=1e-7)
        np.testing.assert_allclose(robust[:, 0], fit["Intercepts"] * 1e-4, rtol=1e-7)
        # without the robust weights a line through 24 pairs is within 3 % of theirs, one through 10 within 26 %
        plain = np.asarray([coefficients(x[b : b + 1], y[b : b + 1], weight)[0, 1] for b in range(6)])
        assert np.abs(plain / fit["Slopes"] - 1).max() < (0.26, 0.03)[k - 1]
