"""How far a Landsat image lies beside its Sentinel-2 reference: measured below a pixel, clouds and changes left out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, minimum_filter, uniform_filter

from marstfn.bands import FINE, RATIO
from marstfn.resampling import looked

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

PSF = 10.0
"""Gaussian sigma in metres that Sentinel-2 is blurred with before the mean over 30 m: what Landsat and its cubic
resampling add."""
HIGH_PASS = 3.0
"""Sigma in Landsat pixels of the local mean taken off both images: haze and the season are smooth, edges are not."""
SEARCH = 6
"""10 m pixels to each side in which the start is looked for."""
PAD = SEARCH + 3
CLEARANCE = 4
"""10 m pixels around a hole of Sentinel-2 that are not used: blur and shift reach that far."""
TUKEY = 3.5
"""Robust standard deviations beyond which a pixel has changed and counts nothing."""
ROUNDS = 25
CONVERGED = 0.02
"""Metres."""
BLOCK = 10
"""Side in Landsat pixels of the blocks whose disagreement gives the standard error: what changes, changes by parcel."""
LEAST_PIXELS = 400
"""Fewer pixels seen by both are refused."""
LEAST_CORRELATION = 0.3
"""Less likeness of the two high-passed images (mean of the bands) is refused."""
MOST_UNEVEN = 1e4
"""How much better one direction may be known than the other."""
INFLATION, FLOOR = 2.0, 0.2
"""What the blocks' disagreement is multiplied by and the metres added (in quadrature) to be a standard error: on
simulated scenes the error then is what it says."""
MOST_ERROR = 5.0
"""Metres of standard error beyond which a window is refused."""
BOUNDS = (
    "PSF", "HIGH_PASS", "SEARCH", "CLEARANCE", "TUKEY", "ROUNDS", "BLOCK", "LEAST_PIXELS", "LEAST_CORRELATION",
    "MOST_UNEVEN", "INFLATION", "FLOOR", "MOST_ERROR",
)  # fmt: skip
"""What a measure depends on."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A shift measured on one window: what Landsat shows lies `east`, `north` metres beside its place in Sentinel-2."""

    east: float
    north: float
    covariance: tuple[float, float, float]
    """Of the two, in m2: (east, both, north)."""
    pixels: int
    """Clear in both and unchanged, weights summed; 30 m."""
    correlation: float
    """Of the two high-passed images, mean of the bands."""

    @property
    def error(self) -> float:
        """Standard error in metres, of either axis on average."""
        return math.sqrt((self.covariance[0] + self.covariance[2]) / 2)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a window tells nothing."""

    reason: str


def measure(landsat: Floats, sentinel2: Floats) -> Measure | Refusal:
    """The shift of Landsat (b, h, w) at 30 m against Sentinel-2 (b, 3h, 3w) at 10 m on the same corners; reflectance,
    NaN where masked.

    Gauss-Newton least squares on the Landsat lattice after a search in steps of 10 m (Lucas and Kanade 1981), gain and
    offset of each band free, bands weighted by their residuals, pixels by Tukey's function of theirs. Raises
    ValueError where the shapes do not fit.
    """
    bands, h, w = landsat.shape
    if sentinel2.shape != (bands, h * RATIO, w * RATIO):
        raise ValueError(f"Sentinel-2 of shape {sentinel2.shape} is not 3 x 3 times Landsat's {landsat.shape}")
    seen = np.asarray(np.isfinite(sentinel2).all(axis=0))
    known = np.asarray(np.isfinite(landsat).all(axis=0))
    known &= minimum_filter(seen, 2 * CLEARANCE + 1, mode="constant", cval=False)[1::RATIO, 1::RATIO]
    if known.sum() < LEAST_PIXELS:
        return Refusal(f"{int(known.sum())} pixels clear in both, {LEAST_PIXELS} needed")
    fine = np.pad(blurred(sentinel2, seen), ((0, 0), (PAD, PAD), (PAD, PAD)), mode="edge")
    flat = Flattened(known)
    own = flat(np.where(known, landsat, np.float32(0)))
    found = _refined(own, fine, flat, _start(own, fine, flat))
    if isinstance(found, Measure) and found.correlation < LEAST_CORRELATION:
        return Refusal(f"correlation {found.correlation:.2f} below {LEAST_CORRELATION}")
    if isinstance(found, Measure) and found.error > MOST_ERROR:
        return Refusal(f"standard error {found.error:.1f} m above {MOST_ERROR:g} m")
    return found


def blurred(sentinel2: Floats, seen: Mask) -> Floats:
    """(b, H, W) as Landsat would see it, centred on each 10 m pixel; holes are filled from around."""
    sigma = PSF / FINE
    weight = uniform_filter(gaussian_filter(seen.astype(np.float32), sigma, truncate=3), RATIO)
    out = np.empty_like(sentinel2)
    for band, values in enumerate(sentinel2):
        total = uniform_filter(gaussian_filter(np.where(seen, values, np.float32(0)), sigma, truncate=3), RATIO)
        out[band] = total / np.maximum(weight, 1e-6)
    return out


class Flattened:
    """High-pass over known pixels only: (b, h, w) minus its local mean, 0 where unknown."""

    def __init__(self, known: Mask) -> None:
        self.known = known
        self._weight = np.maximum(self._mean(known.astype(np.float32)), 1e-6)

    def __call__(self, values: Floats) -> Floats:
        return np.stack([np.where(self.known, v - self._mean(v * self.known) / self._weight, 0) for v in values])

    @staticmethod
    def _mean(plane: Floats) -> Floats:
        return np.asarray(gaussian_filter(plane, HIGH_PASS, mode="constant", truncate=3), np.float32)


def _start(landsat: Floats, fine: Floats, flat: Flattened) -> tuple[float, float]:
    """(east, north) in metres of the step of 10 m at which the images are most alike, extremes clipped."""
    h, w = landsat.shape[1:]
    own = _clipped(landsat[:, flat.known])
    rest = _clipped_planes(fine, flat)
    best, at = -math.inf, (0.0, 0.0)
    for north in range(-SEARCH, SEARCH + 1):
        for east in range(-SEARCH, SEARCH + 1):
            top, left = PAD + 1 + north, PAD + 1 - east
            there = rest[:, top : top + RATIO * h : RATIO, left : left + RATIO * w : RATIO][:, flat.known]
            norm = np.sqrt((own**2).sum(1) * (there**2).sum(1))
            alike = float(((own * there).sum(1) / np.maximum(norm, 1e-12)).sum())
            if alike > best:
                best, at = alike, (float(east * FINE), float(north * FINE))
    return at


def _clipped(values: Floats) -> Floats:
    limit = 3 * 1.4826 * np.median(np.abs(values), axis=-1, keepdims=True)
    return np.asarray(np.clip(values, -limit, limit))


def _clipped_planes(fine: Floats, flat: Flattened) -> Floats:
    out = np.empty_like(fine)
    for band, plane in enumerate(fine):
        high = plane - gaussian_filter(plane, HIGH_PASS * RATIO, truncate=2)
        limit = 3 * 1.4826 * float(np.median(np.abs(high)))
        out[band] = np.clip(high, -limit, limit)
    return out


def _refined(landsat: Floats, fine: Floats, flat: Flattened, start: tuple[float, float]) -> Measure | Refusal:
    at = np.array(start)
    weight = flat.known.astype(np.float64)
    shape = landsat.shape[1:]
    for _ in range(ROUNDS):
        values, slopes = looked(fine, PAD, at[0], at[1], shape)
        model = flat(values)
        slopes = slopes * flat.known
        gain = (weight * landsat * model).sum((1, 2)) / np.maximum((weight * model**2).sum((1, 2)), 1e-12)
        rest = landsat - gain[:, None, None] * model
        spread = np.array([1.4826 * np.median(np.abs(r[flat.known])) for r in rest]) + 1e-6
        far = np.sqrt((rest**2 / spread[:, None, None] ** 2).mean(0))
        scale = max(float(np.median(far[flat.known])), 1e-6)
        weight = np.where(flat.known, np.maximum(1 - (far / (TUKEY * scale)) ** 2, 0) ** 2, 0)
        # what is seen at p comes from p - shift: the model falls where the shift goes up the slope
        jacobian = -(gain / spread)[None, :, None, None] * slopes
        scores = (weight * jacobian * (rest / spread[:, None, None])).sum(1)
        pull = np.sqrt(weight) * jacobian
        information = np.tensordot(pull, pull, ((1, 2, 3), (1, 2, 3)))
        if not np.linalg.cond(information) < MOST_UNEVEN:
            return Refusal("no texture that tells both directions")
        step = np.linalg.solve(information, scores.sum((1, 2)))
        length = float(np.hypot(*step))
        at = at + step * min(1.0, 10 / max(length, 1e-9))
        if np.abs(at).max() > SEARCH * FINE:
            return Refusal(f"no likeness within {SEARCH * FINE} m")
        if length < CONVERGED:
            break
    norm = np.sqrt((weight * landsat**2).sum((1, 2)) * (weight * model**2).sum((1, 2)))
    correlation = float(((weight * landsat * model).sum((1, 2)) / np.maximum(norm, 1e-12)).mean())
    inverse = np.linalg.inv(information)
    covariance = INFLATION**2 * inverse @ _scatter(scores) @ inverse + FLOOR**2 * np.eye(2)
    return Measure(float(at[0]), float(at[1]), _entries(covariance), int(weight.sum()), correlation)


def _scatter(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, 2) sum over blocks of the outer product of their summed scores (2, h, w)."""
    h, w = (-(-n // BLOCK) * BLOCK for n in scores.shape[1:])
    full = np.zeros((2, h, w))
    full[:, : scores.shape[1], : scores.shape[2]] = scores
    sums = full.reshape(2, h // BLOCK, BLOCK, w // BLOCK, BLOCK).sum((2, 4)).reshape(2, -1)
    return np.asarray(sums @ sums.T)


def _entries(matrix: NDArray[np.float64]) -> tuple[float, float, float]:
    return float(matrix[0, 0]), float(matrix[0, 1]), float(matrix[1, 1])
