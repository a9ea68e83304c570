"""STARFM: each 10 m pixel from like pixels around it, and what the coarse sensor saw change there.

Gao, Masek, Schwaller & Hall 2006, IEEE TGRS 44:2207-2218, with one pair (F1, C1) of the reference date and the coarse
image C2 of the target date; C1 and C2 are enlarged to the fine grid, and every band is treated by itself.

* The prediction: F2(0) = sum_k W_k V_k over the pixels k of a window around pixel 0, with V = F1 + C2 - C1.
* Differences: spectral S = |F1 - C1|, temporal T = |C2 - C1|, distance D = 1 + d / A.
* Candidates are pixels like the centre, |F1(k) - F1(0)| <= 2 std(F1) / m for m classes, that tell no less than the
  centre does: S_k < S_0 + sigma_s (eq. 15) and T_k < T_0 + sigma_t (eq. 16), with sigma_s = sqrt(s_F^2 + s_C^2) and
  sigma_t = sqrt(2) s_C from the uncertainties s_F and s_C of the two sensors' reflectance.
* Weights: W_k = (1 / C_k) / sum(1 / C), C = S T D (eq. 10), or with logarithms ln(S B + 2) ln(T B + 2) D (eq. 11).

The formulas are the paper's as later programs and papers cite them. What it leaves open, and what is done here:
* S or T of 0 would take all weight: 1 / B is added to both, as the paper's authors do in their program (one digital
  number), and within the logarithms 2, where 1 would give ln(1) = 0 again.
* Logarithmic weights are the default. Plain products give pixels that did not change (T near 0) most of the weight,
  also where the centre changed, and predict too little of the change.
* `temporal` puts T into the weights, as the paper does; the authors' program leaves it out where there is one pair
  only, as here. T is in the filter in either case.
* `strict` asks candidates to pass both filters, as the paper's text has it. The authors' program accepts those that
  pass either, and so does the default: where a mixed coarse pixel changed by half as much as a pure one, the strict
  filter rejects every pure pixel of the kind that changed, and the paper's own simulated scenes come out wrong.
* 4 classes, as is usual (the authors' program had 40 as its default). The standard deviation is by default the
  window's, as some later programs have it, not the image's as in the authors': the image is whatever tile is at hand,
  and neighbouring tiles would judge likeness differently. A pixel then depends on nothing beyond 24 px.
* One uncertainty for all bands, 0.005 as the authors' program has it; a sequence gives each band its own, such as the
  0.002 in the visible and 0.005 in the near infrared that are quoted from the paper.
* The window of 31 px is 310 m, ten Landsat pixels; the paper's 1500 m are three of MODIS. A is half the window.
* Where nothing passes (only with uncertainties of 0, since the centre is a candidate of its own) V of the centre
  stands. Pixels with a hole in any image are no candidates, and windows end at the image's edge.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from marstfn.baselines.check import checked, unknown
from marstfn.baselines.degrade import Array
from marstfn.baselines.holes import enlarged

Grid = NDArray[np.float64]

ROWS = 16
"""Rows of a block, the unit of work of a thread."""

LANES = 8
"""Doubles that the widest vector registers hold."""


def starfm(
    s2: Array,
    landsat: Array,
    pan: Array | None = None,
    *,
    coarse_then: Array,
    window: int = 31,
    classes: float = 4,
    weights: Literal["log", "product"] = "log",
    temporal: bool = True,
    strict: bool = False,
    spread: Literal["image", "window"] = "window",
    fine_uncertainty: float | Sequence[float] = 0.005,
    coarse_uncertainty: float | Sequence[float] = 0.005,
    distance: float | None = None,
    scale: float = 1e4,
    threads: int = 0,
) -> Array:
    """(b,H,W) reflectance of the target date, float32, from F1 `s2` (b,H,W), C2 `landsat` (b,H/3,W/3) and C1
    `coarse_then` (b,H/3,W/3), a real coarse image of s2's own date; pan is not used (Gao et al. 2006).

    `window` is odd, in px; `distance` is A in px, half the window by default; `scale` is B, 1e4 for reflectance. NaN
    where any of the three has a hole. Raises ValueError on inputs as `checked` does and on parameters out of range.
    """
    fine, now, _ = checked(s2, landsat, pan)
    _, then, _ = checked(s2, coarse_then)
    reach = _reach(window, distance)
    if not (classes > 0 and scale > 0):
        raise ValueError(f"{classes} classes and a scale of {scale}: both must be above 0")
    if weights not in ("log", "product") or spread not in ("image", "window"):
        raise ValueError(f"weights {weights!r} are not log or product, or spread {spread!r} is not image or window")
    sigma_f, sigma_c = (
        _per_band(name, value, len(fine))
        for name, value in (("fine", fine_uncertainty), ("coarse", coarse_uncertainty))
    )
    empty = unknown(fine, now) | unknown(fine, then)
    out = np.full(fine.shape, np.nan, np.float32)
    if empty.all():
        return out
    shown = enlarged(then)
    change = enlarged(now) - shown
    nearness = _nearness(window, reach)
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        for band in range(len(fine)):
            base, seen, moved = (
                np.where(empty, np.nan, image[band]).astype(np.float64) for image in (fine, shown, change)
            )
            spectral, passed = np.abs(base - seen), np.abs(moved)
            weight = _weight(spectral, passed if temporal else None, weights, scale)
            slack = 2 * _spread(base, window, spread) / classes
            # rows of the kernel's window reach beyond the image, where nothing is a candidate
            around = [
                _framed(np.where(empty, blank, image), window, nearness.shape[1], blank)
                for image, blank in (
                    (base, np.nan),
                    (spectral, np.nan),
                    (passed, np.nan),
                    (weight, 0.0),
                    (base + moved, 0.0),
                )
            ]
            tolerance = float(np.hypot(sigma_f[band], sigma_c[band])), float(np.sqrt(2) * sigma_c[band])
            made = np.empty_like(base)
            given = (*around, slack, nearness, *tolerance, strict)

            def block(first: int, given: tuple[Any, ...] = given, made: Grid = made) -> None:
                _block(*given, first, min(first + ROWS, len(made)), made)  # type: ignore[call-arg]

            list(pool.map(block, range(0, len(base), ROWS)))
            out[band] = np.where(empty, np.nan, made)
    return out


def _reach(window: int, distance: float | None) -> float:
    if window < 1 or window % 2 == 0:
        raise ValueError(f"a window of {window} px has no centre; give an odd number")
    reach = max(window // 2, 1) if distance is None else distance
    if reach <= 0:
        raise ValueError(f"a distance of {distance} px is not above 0")
    return float(reach)


def _per_band(name: str, value: float | Sequence[float], bands: int) -> Grid:
    given = np.atleast_1d(np.asarray(value, np.float64))
    if given.shape not in ((1,), (bands,)) or not (given >= 0).all():
        raise ValueError(f"{name} uncertainty of {value}: give one number for all {bands} bands or one each, 0 or more")
    return np.broadcast_to(given, (bands,))


def _nearness(window: int, reach: float) -> Grid:
    """(window, window or more) 1 / D; columns of 0 fill it up to whole vector registers."""
    steps = np.arange(window) - window // 2
    near = 1 / (1 + np.hypot(steps[:, None], steps[None]) / reach)
    out: Grid = np.pad(near, ((0, 0), (0, -window % LANES)))
    return out


def _framed(image: Grid, window: int, columns: int, blank: float) -> Grid:
    half = window // 2
    out: Grid = np.pad(image, ((half, half), (half, columns - half - 1)), constant_values=blank)
    return out


def _spread(base: Grid, window: int, spread: Literal["image", "window"]) -> Grid:
    """(H,W) standard deviation of what is known in the image or in each pixel's window."""
    known = np.isfinite(base)
    centred = np.where(known, base - base[known].mean(), 0.0)
    if spread == "image":
        return np.full(base.shape, np.sqrt((centred[known] ** 2).mean()))

    def total(values: Grid) -> Grid:
        return np.asarray(uniform_filter(values, window, mode="constant"))

    share = np.maximum(total(known.astype(np.float64)), 1e-12)
    variance = total(centred**2) / share - (total(centred) / share) ** 2
    return np.asarray(np.sqrt(np.maximum(variance, 0)))


def _weight(spectral: Grid, passed: Grid | None, weights: Literal["log", "product"], scale: float) -> Grid:
    """(H,W) 1 / C but for the distance."""
    out: Grid = np.ones_like(spectral)
    for difference in (spectral, passed):
        if difference is not None:
            out = out / (np.log(difference * scale + 2) if weights == "log" else difference + 1 / scale)
    return out


# sums may be taken in any order, which lets them run in vector registers; NaN keeps its meaning
@njit(nogil=True, cache=True, fastmath={"reassoc", "nsz"})
def _block(
    base: Grid,
    spectral: Grid,
    passed: Grid,
    weight: Grid,
    value: Grid,
    slack: Grid,
    nearness: Grid,
    sigma_s: float,
    sigma_t: float,
    strict: bool,
    first: int,
    last: int,
    out: Grid,
) -> None:
    """Rows `first` to `last` of `out`; the first five images are framed by half a window."""
    rows, columns = nearness.shape
    half = rows // 2
    for y in range(first, last):
        for x in range(out.shape[1]):
            centre, tolerance = base[y + half, x + half], slack[y, x]
            most_s, most_t = spectral[y + half, x + half] + sigma_s, passed[y + half, x + half] + sigma_t
            total, summed = 0.0, 0.0
            for i in range(rows):
                for j in range(columns):
                    like = abs(base[y + i, x + j] - centre) <= tolerance
                    s, t = spectral[y + i, x + j] < most_s, passed[y + i, x + j] < most_t
                    # no branches: every pixel of the window is summed, most with a weight of 0
                    w = nearness[i, j] * weight[y + i, x + j] if like & ((s & t) | ((not strict) & (s | t))) else 0.0
                    total += w
                    summed += w * value[y + i, x + j]
            out[y, x] = summed / total if total > 0 else value[y + half, x + half]


__all__ = ["starfm"]
