"""What an image is measured by: every score as a function of sums over blocks, so that a score of drawn blocks is had
from drawn sums. Definitions follow `marstfn.metrics`; coherence, NDVI error and the second PSNR are added here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marstfn import metrics
from marstfn.bands import BANDS, RATIO
from marstfn.baselines.degrade import Array, degrade
from marstfn.comparison import Case
from marstfn.evaluate import BLOCK, changed, fallback, unchanged

Floats = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Measure:
    """One column of the tables."""

    key: str
    title: str
    unit: str
    column: str
    """Its name in files, the unit in it."""
    less_is_better: bool
    digits: int
    meaning: str
    banded: bool = True
    """Whether it says something of one band by itself."""


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        m.key: m
        for m in (
            Measure("psnr", "PSNR, MAX = 1", "dB", "psnr_max_1_db", False, 2,
                    "Peak signal-to-noise ratio 20 log10(1 / RMSE): the peak is a reflectance of 1. Capped at 240 dB, "
                    "which an image equal to the truth reaches."),
            Measure("psnr_truth", "PSNR, MAX of the truth", "dB", "psnr_max_of_truth_db", False, 2,
                    "20 log10(MAX / RMSE), MAX being the highest value of the truth among the scored pixels of the "
                    "date (of the band, in tables by band): the definition printed in the paper (equation 12)."),
            Measure("ssim", "SSIM", "1", "ssim", False, 4,
                    "Structural similarity (equation 10), mean of local values in a Gaussian window of 11 x 11 pixels "
                    "(sigma 1.5) for reflectance of range 1; only scored pixels enter a window."),
            Measure("rmse", "RMSE", "reflectance", "rmse_reflectance", True, 4,
                    "Root mean square error over the scored pixels and bands (equation 13)."),
            Measure("r2", "R²", "1", "r2", False, 3,
                    "Coefficient of determination of the prediction itself (equation 14), not of a regression on it; "
                    "mean over bands. Undefined where a band of the truth is constant."),
            Measure("sam", "SAM", "degrees", "sam_degrees", True, 2,
                    "Mean angle between the predicted and the true spectrum of a pixel.", False),
            Measure("ergas", "ERGAS", "1", "ergas", True, 2,
                    "100 / 3 times the root of the mean over bands of (RMSE / mean of the truth) squared. Undefined "
                    "where a band of the truth has the mean 0.", False),
            Measure("coherence", "coherence |D(F) - L|", "reflectance", "coherence_reflectance", True, 4,
                    "Mean absolute difference between the prediction averaged to 30 m and the Landsat pixel it was "
                    "made from, over known Landsat pixels, each counted by its scored 10 m pixels. It says how much "
                    "of Landsat's own measurement is kept, and needs no truth."),
            Measure("ndvi", "NDVI error", "1", "ndvi_rmse", True, 4,
                    "Root mean square error of the vegetation index (nir08 - red) / (nir08 + red); reflectance below "
                    "0 counts as 0.", False),
        )
    }
)  # fmt: skip

ALL, CHANGED, UNCHANGED = PARTS = ("all", "changed", "unchanged")
"""Pixels of a date: every scored one; those whose mean over bands differs from the reference by more than 0.02; those
that do not."""

FLAT = 1e-6
"""Reflectance: a band of the truth whose standard deviation is below counts as constant, whose mean is, as black."""

EXACT = 1e-12
"""Reflectance: the RMSE below which PSNR rises no further."""

MOST_BLOCKS = 1024
"""Of a date: on larger images blocks are larger than 180 m."""


@dataclass(frozen=True, eq=False)
class Ground:
    """What a case fixes before any method is seen: truth, masks (`parts`, (H,W) by name), blocks, the value of empty
    pixels; `centre` and `peak` (6) are the truth's means and maxima over the scored pixels."""

    case: Case
    truth: Doubles
    empty: Doubles
    parts: Mapping[str, Mask]
    labels: NDArray[np.intp]
    side: int
    centre: Doubles
    peak: Doubles

    @classmethod
    def of(cls, case: Case) -> Ground:
        view, scored = case.view, case.scored
        truth = np.where(scored, np.asarray(view.truth, np.float64), 0)
        if not np.isfinite(view.truth[:, scored]).all():
            raise ValueError(f"the truth of {case.name} holds NaN in scored pixels")
        parts = {ALL: scored, CHANGED: scored & changed(view), UNCHANGED: scored & unchanged(view)}
        side = block_side(scored.shape)
        known = truth[:, scored] if scored.any() else np.full((len(truth), 1), np.nan)
        labels = metrics.blocks((scored.shape[0], scored.shape[1]), side)
        empty = np.asarray(fallback(view), np.float64)
        return cls(case, truth, empty, parts, labels, side, known.mean(1), known.max(1))

    def filled(self, image: Array) -> Doubles:
        """(6,H,W) of a result, what it leaves empty as bicubic Landsat. ValueError on another shape."""
        if image.shape != self.truth.shape:
            raise ValueError(f"an image of shape {image.shape} for {self.case.name}, whose truth is {self.truth.shape}")
        finite = np.where(np.isfinite(image), image, np.nan)
        return np.asarray(metrics.fill_empty(finite, self.empty), np.float64)

    def sums(self, image: Array) -> dict[str, Doubles]:
        """By part (rows of blocks, columns of blocks, 3 + 5 bands): sums over the scored pixels of each block, 0 where
        it has none; see `scores`."""
        scored = self.parts[ALL]
        rows, cols = (-(-n // self.side) for n in scored.shape)
        if not scored.any():
            return {part: np.zeros((rows, cols, 3 + 5 * len(self.truth))) for part in self.parts}
        whole = self.filled(image)
        local = metrics.ssim_map(whole, self.truth, scored)[:, scored]
        apart = np.abs(degrade(whole.astype(np.float32)) - self.case.view.landsat)
        cells = np.repeat(np.repeat(apart, RATIO, 1), RATIO, 2)[:, scored]
        made, truth = whole[:, scored], self.truth[:, scored]
        red, nir = BANDS.index("red"), BANDS.index("nir08")
        index = (ndvi(made[red], made[nir]) - ndvi(truth[red], truth[nir])) ** 2
        centred = truth - self.centre[:, None]
        plain = (np.ones(len(index)), metrics.angles(made, truth), index)
        layers = (*plain, *(made - truth) ** 2, *local, *cells, *centred, *centred**2)
        # no pixel is both changed and unchanged; one without a reference is neither
        kind = np.where(self.parts[CHANGED], 1, np.where(self.parts[UNCHANGED], 2, 0))
        size = rows * cols
        label = (kind * size + self.labels)[scored]
        by_kind = np.stack([np.bincount(label, layer, 3 * size) for layer in layers], 1).reshape(3, rows, cols, -1)
        return {ALL: by_kind.sum(0), CHANGED: by_kind[1], UNCHANGED: by_kind[2]}


def scores(sums: Doubles, centre: Doubles, peak: Doubles) -> Doubles:
    """(measures, k, 1 + bands) of (k, columns) sums: all bands together first, then each; NaN where undefined.

    `centre` (bands) is what the sums of the truth are relative to, `peak` (bands) the highest value of the truth.
    """
    bands = len(centre)
    count = np.where(sums[:, :1] > 0, sums[:, :1], np.nan)
    mean = sums / count
    square, local, apart, level, spread = (mean[:, 3 + k * bands : 3 + (k + 1) * bands] for k in range(5))
    rmse = np.sqrt(_with_mean(square))
    highest = np.concatenate([[peak.max()], peak])
    variance = spread - level**2
    truth = centre + level
    with np.errstate(divide="ignore", invalid="ignore"):
        decibel = -20 * np.log10(np.maximum(rmse, EXACT))
        top = 20 * np.log10(np.where(highest > 0, highest, np.nan))
        r2 = 1 - square / np.where(variance > FLAT**2, variance, np.nan)
        ergas = 100 / RATIO * np.sqrt((square / np.where(np.abs(truth) > FLAT, truth, np.nan) ** 2).mean(1))
    values = {
        "psnr": decibel,
        "psnr_truth": decibel + top,
        "ssim": _with_mean(local),
        "rmse": rmse,
        "r2": _with_mean(r2),
        "sam": _alone(mean[:, 1], bands),
        "ergas": _alone(ergas, bands),
        "coherence": _with_mean(apart),
        "ndvi": _alone(np.sqrt(mean[:, 2]), bands),
    }
    return np.stack([values[key] for key in MEASURES])


def moved(sums: Doubles, by: Doubles) -> Doubles:
    """(..., columns) the sums as they are for a `centre` that lies `by` (bands) lower."""
    bands, count = len(by), sums[..., :1]
    out = sums.copy()
    level, spread = (slice(3 + k * bands, 3 + (k + 1) * bands) for k in (3, 4))
    out[..., level] = sums[..., level] + count * by
    out[..., spread] = sums[..., spread] + 2 * by * sums[..., level] + count * by**2
    return out


def ndvi(red: Floats, nir: Floats) -> Floats:
    """(nir - red) / (nir + red) of reflectance, -1..1: below 0 counts as 0, black has the index 0, NaN stays NaN."""
    low, high = np.maximum(red, 0), np.maximum(nir, 0)
    total = low + high
    out: Floats = (high - low) / np.where(total == 0, 1, total)
    return out


def block_side(shape: tuple[int, ...]) -> int:
    """Side of a bootstrap block in 10 m pixels: 18 (180 m), or the next multiple that leaves MOST_BLOCKS or fewer."""
    side = BLOCK
    while -(-shape[0] // side) * -(-shape[1] // side) > MOST_BLOCKS:
        side += BLOCK
    return side


def _with_mean(bands: Doubles) -> Doubles:
    return np.concatenate([bands.mean(1, keepdims=True), bands], 1)


def _alone(values: Doubles, bands: int) -> Doubles:
    return np.concatenate([values[:, None], np.full((len(values), bands), np.nan)], 1)


__all__ = [
    "ALL",
    "CHANGED",
    "MEASURES",
    "PARTS",
    "UNCHANGED",
    "Ground",
    "Measure",
    "block_side",
    "moved",
    "ndvi",
    "scores",
]
