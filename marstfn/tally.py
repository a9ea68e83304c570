"""What the errors of a method add up to, block by block, and every score and interval that follows from the sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marstfn import metrics
from marstfn.bands import RATIO
from marstfn.metrics import Interval

Floats = NDArray[np.floating[Any]]

METRICS = ("rmse", "psnr", "ssim", "sam", "ergas")
"""RMSE in reflectance, PSNR in dB for a peak of 1, mean local SSIM, mean spectral angle in degrees, ERGAS."""
LESS_IS_BETTER = ("rmse", "sam", "ergas")

FIRST_BAND = 3
"""Columns of the sums: pixels, SSIM, spectral angle, then squared errors by band, then the truth by band."""


@dataclass(frozen=True, eq=False)
class Tally:
    """One method over scenes: `sums` (n, 3 + 2 bands) by block, `scene` (n,) the scene each block lies in."""

    sums: NDArray[np.float64]
    scene: NDArray[np.intp]

    @property
    def pixels(self) -> int:
        return int(self.sums[:, 0].sum())

    def score(self, metric: str) -> float:
        """Over all pixels. ValueError where there is none."""
        if not self.pixels:
            raise ValueError("no pixel was scored")
        return float(_score(metric, self.sums.sum(0)[None])[0])


def tally(
    images: Sequence[Floats],
    truths: Sequence[Floats],
    masks: Sequence[NDArray[np.bool_]],
    side: int,
) -> Tally:
    """Sums over square blocks of `side` px of (b, H, W) images against their truths, over the pixels of the masks;
    blocks without a pixel are kept, so that tallies of several methods over the same masks match row by row."""
    rows: list[NDArray[np.float64]] = []
    scenes: list[NDArray[np.intp]] = []
    for number, (image, truth, mask) in enumerate(zip(images, truths, masks, strict=True)):
        labels = metrics.blocks((truth.shape[1], truth.shape[2]), side)
        size = int(labels.max()) + 1
        if not mask.any():
            continue
        local = np.nan_to_num(metrics.ssim_map(image, truth, mask)).mean(0)
        angle = np.zeros(mask.shape)
        angle[mask] = metrics.angles(image[:, mask], truth[:, mask])
        layers = [np.ones(mask.shape), local, angle, *(np.asarray(image, np.float64) - truth) ** 2, *truth]
        sums = [np.bincount(labels[mask], np.asarray(layer)[mask], size) for layer in layers]
        rows.append(np.stack(sums, 1))
        scenes.append(np.full(size, number, np.intp))
    if not rows:
        return Tally(np.zeros((0, FIRST_BAND)), np.zeros(0, np.intp))
    return Tally(np.concatenate(rows), np.concatenate(scenes))


def differences(first: Tally, second: Tally, *, draws: int = 2000, seed: int = 0) -> dict[str, Interval]:
    """Scores of the first minus those of the second with 95 % intervals, by metric.

    Scenes are drawn first and blocks within them, since blocks of one scene share its errors; both methods are
    scored on the same draw. Raises ValueError where the tallies are not over the same blocks.
    """
    if first.sums.shape != second.sums.shape or not np.array_equal(first.sums[:, 0], second.sums[:, 0]):
        raise ValueError("the two methods were not scored over the same blocks")
    keep = first.sums[:, 0] > 0
    if not keep.any():
        raise ValueError("no pixel was scored")
    times = _draws(first.scene[keep], draws, seed)
    out = {}
    for metric in METRICS:
        pair = [_score(metric, np.vstack([t.sums.sum(0), times @ t.sums[keep]])) for t in (first, second)]
        point, *sampled = pair[0] - pair[1]
        low, high = np.quantile(sampled, [0.025, 0.975])
        out[metric] = Interval(float(point), float(low), float(high))
    return out


def verdict(metric: str, interval: Interval) -> str:
    """`better`, `worse` or `tie` for the first method: a tie where the interval holds 0."""
    if not interval.excludes_zero:
        return "tie"
    return "better" if (interval.high < 0) == (metric in LESS_IS_BETTER) else "worse"


def _score(metric: str, sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """(k,) of (k, columns) sums."""
    count = sums[:, :1]
    bands = (sums.shape[1] - FIRST_BAND) // 2
    error = sums[:, FIRST_BAND : FIRST_BAND + bands] / count
    rmse = np.sqrt(error.mean(1))
    if metric == "rmse":
        return np.asarray(rmse)
    if metric == "psnr":
        return np.asarray(-20 * np.log10(np.maximum(rmse, 1e-12)))
    if metric == "ssim":
        return np.asarray(sums[:, 1] / count[:, 0])
    if metric == "sam":
        return np.asarray(sums[:, 2] / count[:, 0])
    if metric == "ergas":
        mean = sums[:, FIRST_BAND + bands :] / count
        return np.asarray(100 / RATIO * np.sqrt((error / mean**2).mean(1)))
    raise ValueError(f"unknown metric {metric!r}; known: {', '.join(METRICS)}")


def _draws(scene: NDArray[np.intp], draws: int, seed: int) -> NDArray[np.float64]:
    """(draws, n) how often each block is drawn."""
    members = [np.flatnonzero(scene == s) for s in np.unique(scene)]
    rng = np.random.default_rng(seed)
    out = np.zeros((draws, len(scene)))
    for k in range(draws):
        for s in rng.integers(len(members), size=len(members)):
            own = members[s]
            out[k] += np.bincount(own[rng.integers(len(own), size=len(own))], minlength=len(scene))
    return out


__all__ = ["LESS_IS_BETTER", "METRICS", "Tally", "differences", "tally", "verdict"]
