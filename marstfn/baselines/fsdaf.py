"""FSDAF of Zhu, Helmer, Gao, Liu, Chen, Lefsky 2016, Remote Sensing of Environment 172:165-177, from two images.

F1 is Sentinel-2 at 10 m (`s2`), C2 Landsat at 30 m (`landsat`). The paper has a third image, C1, coarse and of F1's
date; of two sensors of which one saw only F1 and the other only C2 it is made: C1 = D(F1), the 3 x 3 mean. m = 9 fine
pixels j lie in a coarse cell i; c is a class, b a band.

1. F1 falls into classes; f_c(i), the share of class c in cell i.
2. dC(i,b) = C2 - C1 = sum_c f_c(i) dF(c,b): dF by least squares over each class's purest cells, those left out whose
   dC is outside the sample's quantiles.
3. F_TP(ij,b) = F1(ij,b) + dF(class(ij),b), and what it leaves: R(i,b) = dC - (mean_j F_TP - mean_j F1).
4. F_SP: the thin-plate spline through C2 at the cells' centres.
5. HI(ij), the share of pixels of the same class around ij. E_ho = F_SP - F_TP, 0 where its sign is not R's, else |.|;
   E_he = |R|; CW = E_ho HI + E_he (1 - HI); W = CW / mean_j CW; W of more than 10 becomes the mean; r = W R. Then
   F2' = F_TP + r, kept between the extremes of C2 and F_TP and within the valid range.
6. F2 = F1 + the mean change F2' - F1 of similar pixels (`marstfn.baselines.similar`); where that leaves the valid
   range, F1 + dC instead.

Decided here, where the paper is silent or speaks of other sensors:
* 1: k-means on standardised bands in place of ISODATA, from a fixed start.
* 2: samples and quantiles as in the public code line: up to `pure` cells per class with f_c > 0.01, dC within 25-75 %.
  Many cells are wholly of one class; which of them are taken is drawn with a fixed seed, lest the upper rows decide.
  The equations are solved for the departure from the sample's mean change, by the shortest solution. With enough cells
  that is the same; where classes cannot be told apart, or one has no cell, they change as the sample does, not by 0.
* 4: each fine pixel by the spline through the 7 x 7 cells around its own, at the edge through the outermost 7 x 7.
* 5: HI in a window as wide as a coarse pixel, 3 x 3. Of nine pixels none has W above 9: the limit acts when set lower.
* The valid range is -0.1 to 1.6 and not 0 to 1: real reflectance falls below 0 over dark water and shadow and exceeds 1
  over snow and glint. These are the lowest value Sentinel-2's products can hold and the highest Landsat's can.
* Holes: C1 is the mean of the pixels known; cells known in part are no samples while there are whole ones; a Landsat
  hole takes its nearest neighbour's value in the spline's arithmetic, and its pixels are left out of the result.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import ClusterError, kmeans2, vq
from scipy.special import xlogy

from marstfn.bands import RATIO
from marstfn.baselines.check import checked, unknown
from marstfn.baselines.degrade import Array, degrade
from marstfn.baselines.holes import closed
from marstfn.baselines.similar import smoothed
from marstfn.patches import known_mean

Real = NDArray[np.float64]

VALID = (-0.1, 1.6)
"""Reflectance that the sensors' products can hold; what leaves it is no prediction."""

SAMPLE = 20_000
"""Pixels that the class means are found on; all pixels are then assigned."""

NODES = 7
"""Coarse pixels along a side of the square that one spline goes through."""

PRESENT = 0.01
"""Share of a cell above which it may tell of a class."""


def fsdaf(
    s2: Array,
    landsat: Array,
    pan: Array | None = None,
    *,
    classes: int = 5,
    window: int = 20,
    similar: int = 20,
    pure: int = 100,
    quantiles: tuple[float, float] = (0.25, 0.75),
    homogeneity: int = 1,
    heaviest: float = 10.0,
    valid: tuple[float, float] = VALID,
    threads: int = 0,
) -> Array:
    """(b,H,W) at 10 m and (b,H/3,W/3) at 30 m -> (b,H,W) reflectance, float32, NaN where either is; pan is not used.

    In the literature's words: `classes` n_class, at most; `window` w, half the side of the search in 10 m pixels;
    `similar` num_similar_pixel; `pure` num_pure; `homogeneity` half the side of HI's window; `heaviest` the limit of W;
    `valid` [DN_min, DN_max]. `threads` 0 means all processors and changes no bit. Gives F1 back where C2 = D(F1) and
    F1 is within `valid`. Raises ValueError on inputs that do not fit (`check.checked`) and parameters out of range.
    Zhu et al. 2016.
    """
    fine, coarse, _ = checked(s2, landsat, pan)
    if min(classes, window, similar, pure) < 1:
        raise ValueError(f"{classes=}, {window=}, {similar=}, {pure=}: one is below 1; leave it out for its default")
    if min(homogeneity, threads) < 0 or heaviest <= 0 or valid[0] >= valid[1]:
        raise ValueError(f"{homogeneity=}, {threads=}, {heaviest=}, {valid=}: out of range; see the defaults")
    if not 0 <= quantiles[0] <= 0.5 <= quantiles[1] <= 1:
        raise ValueError(f"quantiles {quantiles} do not enclose the median; give for instance (0.25, 0.75)")
    hole = unknown(fine, coarse)
    if hole.all():
        return np.full(fine.shape, np.nan, np.float32)
    fine = np.where(np.isnan(fine).any(0), np.float32(np.nan), fine)
    labels = classified(fine, classes)
    before = degrade(fine)
    whole = np.isfinite(before).all(0)
    change = np.where(np.isnan(coarse).any(0), np.nan, coarse - np.where(whole, before, known_mean(fine)))
    fractions = shares(labels)
    cells = np.isfinite(change).all(0)
    cells = cells & whole if (cells & whole).any() else cells
    by_class = class_change(fractions[:, cells], change[:, cells], pure, quantiles)
    spatial = thin_plate(coarse)
    alike = homogeneous(labels, homogeneity)
    moved = np.empty_like(fine)
    for b, (first, second) in enumerate(zip(fine, coarse, strict=True)):
        temporal = np.where(hole, np.nan, first + np.append(by_class[b], np.nan)[labels])
        rest = change[b] - (cell_mean(temporal) - cell_mean(np.where(hole, np.nan, first)))
        made = temporal + distributed(rest, spatial[b], temporal, alike, heaviest)
        low, high = min(np.nanmin(second), np.nanmin(temporal)), max(np.nanmax(second), np.nanmax(temporal))
        moved[b] = np.clip(made, max(valid[0], low), min(valid[1], high)) - first
    threshold = 2 * np.nanstd(fine, axis=(1, 2), dtype=np.float64) / classes
    out = fine + smoothed(fine, moved, threshold, window=window, similar=similar, threads=threads)
    instead = np.clip(fine + spread(change), *valid)
    return np.where((out < valid[0]) | (out > valid[1]), instead, out).astype(np.float32)


def classified(fine: Array, classes: int) -> NDArray[np.int64]:
    """(b,H,W) -> (H,W) classes, -1 where a band is NaN; fewer than `classes` where fewer pixels differ. Step 1."""
    known = np.isfinite(fine).all(0)
    labels = np.full(known.shape, -1, np.int64)
    pixels = fine[:, known].T.astype(np.float64)
    scale = pixels.std(0)
    pixels = (pixels - pixels.mean(0)) / np.where(scale > 0, scale, 1)
    rng = np.random.default_rng(0)
    sample = pixels if len(pixels) <= SAMPLE else pixels[rng.choice(len(pixels), SAMPLE, replace=False)]
    means = np.zeros((1, pixels.shape[1]))
    for number in range(min(classes, len(np.unique(sample, axis=0))), 1, -1):
        try:
            means, _ = kmeans2(sample, number, iter=30, minit="++", missing="raise", rng=np.random.default_rng(1))
            break
        except ClusterError:  # a class went empty on the way: the pixels make fewer
            continue
    labels[known] = vq(pixels, means)[0]
    return labels


def shares(labels: NDArray[np.int64]) -> Real:
    """(H,W) classes -> (c,H/3,W/3): each class's share of a cell's known pixels, 0 where none is known."""
    height, width = (n // RATIO for n in labels.shape)
    cells = labels.reshape(height, RATIO, width, RATIO)
    counts = np.stack([(cells == c).sum((1, 3)) for c in range(labels.max() + 1)])
    out: Real = counts / np.maximum(counts.sum(0), 1)
    return out


def class_change(
    fractions: Real, change: NDArray[np.floating], pure: int, quantiles: tuple[float, float] = (0.25, 0.75)
) -> Real:
    """Shares (c,n) and changes (b,n) of n cells -> (b,c), each class's change: step 2, without NaN in either."""
    drawn = np.random.default_rng(2).permutation(fractions.shape[1])
    taken = []
    for share in fractions:
        count = min(pure, int((share > PRESENT).sum()))
        taken.append(drawn[np.argsort(-share[drawn], kind="stable")[:count]])
    out = np.zeros((len(change), len(fractions)))
    for b, band in enumerate(change.astype(np.float64)):
        rows = []
        for cells in filter(len, taken):
            low, high = np.quantile(band[cells], quantiles)
            inner = cells[(band[cells] >= low) & (band[cells] <= high)]
            rows.append(inner if len(inner) else cells)  # two cells can both lie outside their quantiles
        used = np.concatenate(rows)
        mean = band[used].mean()
        out[b] = mean + np.linalg.lstsq(fractions[:, used].T, band[used] - mean, rcond=None)[0]
    return out


def thin_plate(coarse: Array) -> Real:
    """(b,h,w) -> (b,3h,3w): at every fine pixel the thin-plate spline through the nearest 7 x 7 cells' centres."""
    values, _ = closed(coarse.astype(np.float64))
    bands, height, width = values.shape
    rows, cols = min(NODES, height), min(NODES, width)
    weights = _spline(rows, cols)
    squares = np.lib.stride_tricks.sliding_window_view(values, (rows, cols), axis=(1, 2))
    # a square that would leave the image stands at its edge, and the cell somewhere off the square's middle
    top = np.clip(np.arange(height) - rows // 2, 0, height - rows)
    left = np.clip(np.arange(width) - cols // 2, 0, width - cols)
    out = np.empty((bands, height, RATIO, width, RATIO))
    for row, first in enumerate(top):
        nodes = squares[:, first, left].reshape(bands, width, rows * cols)
        out[:, row] = np.einsum("ixjn,bxn->bixj", weights[row - first][:, np.arange(width) - left], nodes)
    return out.reshape(bands, height * RATIO, width * RATIO)


@lru_cache
def _spline(rows: int, cols: int) -> Real:
    """(rows, 3, cols, 3, rows * cols): each node's weight in the spline's value at each fine pixel of each cell of
    rows x cols; nodes stand alike all over a grid, so one system serves the whole image."""
    nodes = np.stack(np.meshgrid(np.arange(rows), np.arange(cols), indexing="ij"), -1).reshape(-1, 2).astype(float)
    fine = [(np.arange(n * RATIO) + 0.5) / RATIO - 0.5 for n in (rows, cols)]
    places = np.stack(np.meshgrid(*fine, indexing="ij"), -1).reshape(-1, 2)

    def row(points: Real) -> Real:
        square = ((points[:, None] - nodes) ** 2).sum(-1)
        return np.hstack([xlogy(square, square) / 2, np.ones((len(points), 1)), points])

    at_nodes = row(nodes)
    system = np.vstack([at_nodes, np.hstack([at_nodes[:, len(nodes) :].T, np.zeros((3, 3))])])
    # nodes in one line leave a column of zeros, which least squares passes over
    weights = np.linalg.lstsq(system, row(places).T, rcond=None)[0][: len(nodes)]
    return np.ascontiguousarray(weights.T).reshape(rows, RATIO, cols, RATIO, -1)


def homogeneous(labels: NDArray[np.int64], half: int = 1) -> Real:
    """(H,W) classes -> (H,W) HI: the share of known pixels within `half` rows and columns that are of the pixel's own
    class; NaN where the pixel has none."""
    height, width = labels.shape
    padded = np.pad(labels, half, constant_values=-1)
    same, known = np.zeros((2, height, width), np.int64)
    for dy, dx in np.ndindex(2 * half + 1, 2 * half + 1):
        other = padded[dy : dy + height, dx : dx + width]
        same += other == labels
        known += other >= 0
    return np.where(labels >= 0, same / np.maximum(known, 1), np.nan)


def distributed(rest: Real, spatial: Real, temporal: Real, alike: Real, heaviest: float = 10.0) -> Real:
    """The residual `rest` (h,w) of each cell over its pixels, (H,W): r of step 5, with mean `rest` in every cell."""
    whole = spread(rest)
    error = spatial - temporal
    error = np.where(np.sign(error) == np.sign(whole), np.abs(error), 0)
    weight = np.where(np.isnan(temporal), np.nan, error * alike + np.abs(whole) * (1 - alike) + 1e-9)
    weight = weight / spread(cell_mean(weight))
    weight = np.where(weight > heaviest, 1, weight)
    return np.asarray(weight / spread(cell_mean(weight)) * whole, np.float64)


def spread(coarse: NDArray[np.floating]) -> NDArray[np.floating]:
    """(..., h, w) -> (..., 3h, 3w), each cell's value for all its pixels."""
    return np.repeat(np.repeat(coarse, RATIO, -2), RATIO, -1)


def cell_mean(fine: NDArray[np.floating]) -> Real:
    """(H,W) -> (H/3,W/3), float64: the mean of a cell's known pixels, NaN where none is."""
    height, width = (n // RATIO for n in fine.shape)
    cells = fine.reshape(height, RATIO, width, RATIO)
    known = ~np.isnan(cells)
    total = np.where(known, cells, 0).sum((1, 3), dtype=np.float64)
    count = known.sum((1, 3))
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan), np.float64)


__all__ = ["fsdaf"]
