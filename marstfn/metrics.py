"""How near a prediction comes to the truth, over one pixel set fixed beforehand (equations 10-14 and companions).

Images are (b, H, W) or (H, W) reflectance; `mask` is (H, W) bool, True = scored, and defaults to every pixel. All raise
ValueError on unlike shapes, an empty mask, or NaN in a scored pixel: a pixel that a method left empty must be given a
value first (`fill_empty`), or methods would be scored on different pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from marstfn.bands import RATIO

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

RADIUS, SIGMA = 5, 1.5
"""SSIM window: 11 x 11 pixels, Gaussian, as Wang et al. 2004."""


def fill_empty(prediction: Floats, fallback: Floats) -> Floats:
    """`prediction` with the values of `fallback` (bicubic Landsat) where it is NaN."""
    return np.where(np.isnan(prediction), fallback, prediction)


def rmse(prediction: Floats, truth: Floats, mask: Mask | None = None) -> float:
    """Root mean square error over scored pixels and bands (equation 13), in reflectance."""
    x, y = _scored(prediction, truth, mask)
    return float(np.sqrt(np.mean((x - y) ** 2)))


def psnr(prediction: Floats, truth: Floats, mask: Mask | None = None, peak: float | Literal["truth"] = 1.0) -> float:
    """Peak signal-to-noise ratio in dB (equation 12); `peak` 1 or "truth", the paper's maximum of the true image."""
    x, y = _scored(prediction, truth, mask)
    top = float(y.max()) if peak == "truth" else float(peak)
    error = float(np.sqrt(np.mean((x - y) ** 2)))
    return float("inf") if error == 0 else 20 * float(np.log10(top / error))


def ssim_map(prediction: Floats, truth: Floats, mask: Mask | None = None, data_range: float = 1.0) -> Floats:
    """Local SSIM (equation 10), (b, H, W) float64, NaN outside the mask.

    Local moments are taken over the scored pixels of the window alone, so that nothing outside the mask is seen.
    """
    x, y, where = _images(prediction, truth, mask)
    weight = _blur(where.astype(np.float64))

    def local(image: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            out: Floats = _blur(np.where(where, image, 0.0)) / weight
        return out

    mx, my = local(x), local(y)
    vx, vy, cov = local(x * x) - mx * mx, local(y * y) - my * my, local(x * y) - mx * my
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    value = ((2 * mx * my + c1) * (2 * cov + c2)) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return np.where(where, value, np.nan)


def ssim(prediction: Floats, truth: Floats, mask: Mask | None = None, data_range: float = 1.0) -> float:
    """Mean local SSIM over scored pixels and bands, -1..1, for reflectance of the stated range."""
    return float(np.nanmean(ssim_map(prediction, truth, mask, data_range)))


def sam(prediction: Floats, truth: Floats, mask: Mask | None = None) -> float:
    """Mean spectral angle in degrees over the scored pixels."""
    return float(angles(*_scored(prediction, truth, mask)).mean())


def angles(x: Floats, y: Floats) -> Floats:
    """Spectral angles in degrees, (b, n) and (b, n) -> (n,); 0 where either is black."""
    norms = np.linalg.norm(x, axis=0) * np.linalg.norm(y, axis=0)
    cosine = np.where(norms > 0, (x * y).sum(0) / np.where(norms > 0, norms, 1), 1.0)
    out: Floats = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    return out


def ergas(prediction: Floats, truth: Floats, mask: Mask | None = None) -> float:
    """Relative global error, 100 / 3 sqrt(mean over bands of (RMSE / mean)^2), for 30 m brought to 10 m."""
    x, y = _scored(prediction, truth, mask)
    share = np.mean((x - y) ** 2, axis=1) / np.mean(y, axis=1) ** 2
    return float(100 / RATIO * np.sqrt(share.mean()))


def r2(prediction: Floats, truth: Floats, mask: Mask | None = None) -> float:
    """Coefficient of determination of the prediction, mean over bands (1 perfect, below 0 worse than the mean)."""
    x, y = _scored(prediction, truth, mask)
    spread = np.sum((y - y.mean(1, keepdims=True)) ** 2, axis=1)
    if (np.ptp(y, axis=1) == 0).any():
        raise ValueError("the truth is constant in a band: R2 has no meaning there")
    return float(np.mean(1 - np.sum((x - y) ** 2, axis=1) / spread))


@dataclass(frozen=True, slots=True)
class Interval:
    """A paired difference and the interval that holds it at the stated level."""

    estimate: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def blocks(shape: tuple[int, int], side: int) -> NDArray[np.intp]:
    """(H, W) labels of square blocks of `side` pixels, 0.., row by row; the last of a row or column may be smaller."""
    height, width = shape
    per_row = -(-width // side)
    return (np.arange(height)[:, None] // side) * per_row + np.arange(width)[None] // side


def block_sums(values: Floats, labels: NDArray[np.intp], mask: Mask | None = None) -> tuple[Floats, Floats]:
    """Per block: the sum over scored pixels of `values` (b, H, W) averaged over bands, and the number of pixels."""
    plane = values if values.ndim == 2 else values.mean(0)
    where = np.ones(plane.shape, bool) if mask is None else mask
    size = int(labels.max()) + 1
    total = np.bincount(labels[where], plane[where], size).astype(np.float64)
    return total, np.bincount(labels[where], minlength=size).astype(np.float64)


def block_bootstrap(
    first: Floats,
    second: Floats,
    counts: Floats,
    *,
    groups: NDArray[np.intp] | None = None,
    root: bool = False,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of score(first) - score(second) by resampling blocks, both methods on the same blocks.

    `first`, `second`, `counts`: (n,) sums of a per-pixel score and numbers of pixels by block (`block_sums`). The
    score is sum / count, or its root with `root` (squared errors -> RMSE). `groups` (n,) names the scene of each block:
    scenes are then drawn first, and blocks within them, since blocks of one scene share its errors.
    """
    if not (first.shape == second.shape == counts.shape) or first.ndim != 1 or not counts.sum() > 0:
        raise ValueError("block sums must be equal one-dimensional arrays with at least one scored pixel")
    keep = counts > 0
    table = np.stack([first[keep], second[keep], counts[keep]])  # (3, n)
    names = np.zeros(keep.sum(), np.intp) if groups is None else groups[keep]
    members = [np.flatnonzero(names == g) for g in np.unique(names)]
    rng = np.random.default_rng(seed)
    sampled = np.empty((3, draws))
    for k in range(draws):
        scenes = rng.integers(len(members), size=len(members))
        chosen = np.concatenate([rng.choice(members[s], len(members[s])) for s in scenes])
        sampled[:, k] = table[:, chosen].sum(1)

    def score(sums: Floats) -> Floats:
        means = sums[:2] / sums[2]
        out: Floats = np.sqrt(means) if root else means
        return out

    difference = np.subtract(*score(sampled))
    point = np.subtract(*score(table.sum(1, keepdims=True)))
    low, high = np.quantile(difference, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(point[0]), float(low), float(high))


def _images(prediction: Floats, truth: Floats, mask: Mask | None) -> tuple[Floats, Floats, Mask]:
    if prediction.shape != truth.shape or truth.ndim not in (2, 3):
        raise ValueError(f"prediction {prediction.shape} and truth {truth.shape} are not images of one shape")
    x, y = (np.asarray(a, np.float64).reshape(-1, *truth.shape[-2:]) for a in (prediction, truth))
    where = np.ones(truth.shape[-2:], bool) if mask is None else np.asarray(mask, bool)
    if where.shape != truth.shape[-2:]:
        raise ValueError(f"mask {where.shape} does not match images of {truth.shape[-2:]} px")
    if not where.any():
        raise ValueError("the mask leaves no pixel to score")
    for name, image in (("prediction", x), ("truth", y)):
        if not np.isfinite(image[:, where]).all():
            raise ValueError(f"the {name} holds NaN in scored pixels; fill it (fill_empty) or change the mask")
    return x, y, where


def _scored(prediction: Floats, truth: Floats, mask: Mask | None) -> tuple[Floats, Floats]:
    x, y, where = _images(prediction, truth, mask)
    return x[:, where], y[:, where]


def _blur(image: Floats) -> Floats:
    line = np.exp(-0.5 * (np.arange(-RADIUS, RADIUS + 1) / SIGMA) ** 2)
    line /= line.sum()
    rows: Floats = correlate1d(image, line, axis=-2, mode="constant")
    out: Floats = correlate1d(rows, line, axis=-1, mode="constant")
    return out
