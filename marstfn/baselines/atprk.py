"""ATPRK: Landsat brought to 10 m by regression on the covariates, and kriging of what the regression leaves.

Wang, Shi, Atkinson & Zhao 2015, Remote Sensing of Environment 166:191 (ATPRK); Wang, Shi, Li & Atkinson 2016, ISPRS
Journal 114:151 (Sentinel-2, selected and synthesised band); Wang, Blackburn, Onojeghuo, Dash, Zhou, Zhang & Atkinson
2017, IEEE TGRS 55:3885 (Landsat 8 with Sentinel-2, and the pan band as a covariate). With s = 3 fine pixels along a
coarse one, z a Landsat band and x_p the covariates (Sentinel-2's bands, and pan on 10 m):

1. response of the sensor, h over (2w+1)s x (2w+1)s fine pixels, Gaussian of sigma = s/2 px (15 m), sum 1;
   `down(x)` is its inner product with x at every coarse pixel, edges repeated.
2. one regression over the image and band, `z ~ a_0 + sum_p a_p down(x_p)`; `Z_R = a_0 + sum_p a_p x_p` at 10 m;
   residual `R = z - down(Z_R)` at 30 m. `scheme` "all" takes every covariate, "selected" the one that correlates most.
3. semivariogram of R, its exponential model, and the point model behind it (`marstfn.baselines.variogram`).
4. for each of the s^2 places v in a coarse pixel the weights of its (2w+1)^2 neighbours:
   `[T 1; 1' 0] [lambda; mu] = [t; 1]`, T_ij the semivariance between the supports of neighbours i and j, each point
   weighted by h, t_i that between v and support i. They are the same all over the image, so that kriging is one small
   correlation per place: `Z = Z_R + sum_i lambda_i(v) R_i`, edges of R repeated.

With the ideal square response (`psf="square"`) the mean of Z over a Landsat pixel is that pixel: t then has the
column of T as its mean over v. With the Gaussian it is not.

Where the papers are silent:

* A cell whose response lies on known pixels to LEAST or more is known: it is seen through those alone, and weighs in
  the regression by their share (on simulated scenes with 10 % of holes RMSE was 0.5 % lower than with whole cells
  alone). Fewer of them than CELLS for each coefficient: pan is left out first, then all covariates but the one that
  correlates most, then all, and Landsat's mean is the regression. A covariate without variation has the coefficient 0,
  and of covariates that say the same each has its share (the least solution in standardised covariates).
* The residual of an unknown cell is that of the nearest known one, as it is beyond the image's edge: kriging reaches
  `window` cells into a hole, and a 0 there would say that the regression is right where its neighbours know better
  (within 60 m of holes RMSE was 2.7 % higher with it). Only pixels without Sentinel-2 or under an unknown Landsat pixel
  are left empty.
* Pan goes from 15 to 10 m by bicubic interpolation and through the same response as any covariate. It nearly is a sum
  of visible bands of another day, and least squares then take the small differences at 30 m between large opposed
  terms, which do not hold at 10 m. So with pan the coefficients are shrunk (ridge regression, the penalty `ridge`
  times the number of cells on squares of standardised coefficients), by RIDGE if nothing else is asked for: of 0 to 3,
  the least error on 10 simulated scenes lay at 0.1 to 0.2 (RMSE 0.0216; 0.0236 at 0, 0.0219 without pan, 0.0215 without
  pan and the same ridge). Pixels near a hole in pan are those of the run without it.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from marstfn.bands import COARSE, FINE, PAN_RES, RATIO
from marstfn.baselines.check import checked, unknown
from marstfn.baselines.degrade import Array, upsample
from marstfn.baselines.holes import closed
from marstfn.baselines.variogram import Exponential, Floats, Grid, deconvolved, fitted, semivariogram

Response = Literal["gaussian", "square"]
Scheme = Literal["all", "selected"]

RIDGE = 0.1
"""Penalty on standardised coefficients where pan is a covariate."""
CELLS = 5
"""Coarse pixels that a regression needs for each of its coefficients."""
LEAST = 0.5
"""Share of a coarse pixel's response that must lie on known pixels if its residual is to be used."""
VALID = (-0.1, 1.6)
"""Reflectance that the products of the two sensors can hold."""
FLAT = 1e-6
"""Standard deviation, reflectance, below which a covariate is a constant: float32 has rounding of this size."""


def atprk(
    s2: Array,
    landsat: Array,
    pan: Array | None = None,
    *,
    psf: Response = "gaussian",
    sigma: float = COARSE / 2,
    window: int = 1,
    lags: int = 20,
    scheme: Scheme = "all",
    ridge: float | None = None,
    grid: Grid = Grid(),  # noqa: B008 - frozen
    valid: tuple[float, float] = VALID,
) -> Array:
    """(b,H,W) at 10 m, (b,H/3,W/3) at 30 m and perhaps pan (1,2H/3,2W/3) at 15 m -> (b,H,W) reflectance, float32.

    `sigma` of the Gaussian in metres, `window` half the neighbourhood in coarse pixels, `lags` of the semivariogram in
    coarse pixels, `grid` the candidates of the deconvolution; `ridge` None is 0 without pan and RIDGE with it;
    results are held within `valid`. NaN
    where any band of Sentinel-2 or of the Landsat pixel above is NaN. Raises ValueError as `checked` does, and for
    parameters out of their range.
    """
    fine, coarse, sharp = checked(s2, landsat, pan)
    if psf not in ("gaussian", "square") or scheme not in ("all", "selected"):
        raise ValueError(f"psf {psf!r} or scheme {scheme!r} is unknown; take gaussian or square, all or selected")
    if window < 1 or lags < 2 or sigma <= 0 or (ridge is not None and ridge < 0):
        raise ValueError(
            f"window {window}, lags {lags}, sigma {sigma}, ridge {ridge}: window must be at least 1, lags at least 2, "
            "sigma above 0 and ridge not below 0"
        )
    taps = response(psf, sigma / FINE, window)
    empty = unknown(fine, coarse)
    out = np.full(fine.shape, np.nan, np.float32)
    if empty.all():
        return out
    wanted = np.where(np.isnan(coarse).any(axis=0), np.nan, coarse.astype(np.float64))
    if sharp is not None:
        covariates = np.concatenate([fine, upsample(sharp, PAN_RES / FINE)])
        made = _fused(covariates, wanted, taps, lags, scheme, RIDGE if ridge is None else ridge, grid, spare=True)
        if made is not None:
            out[:] = made
    missing = np.isnan(out[0]) & ~empty
    if missing.any():
        made = _fused(fine, wanted, taps, lags, scheme, ridge or 0.0, grid)
        assert made is not None
        np.copyto(out, made, where=missing, casting="same_kind")
    return np.clip(out, *valid, out=out)


def response(psf: Response, sigma: float, window: int) -> Floats:
    """((2w+1)s,) taps along one axis, sum 1; the response h is their outer product. `sigma` in fine pixels."""
    place = np.arange((2 * window + 1) * RATIO) - ((2 * window + 1) * RATIO - 1) / 2
    taps = np.exp(-(place**2) / (2 * sigma**2)) if psf == "gaussian" else (np.abs(place) < RATIO / 2).astype(np.float64)
    out: Floats = taps / taps.sum()
    return out


def down(fine: NDArray[Any], taps: Floats) -> Floats:
    """(b, H, W) -> (b, H/3, W/3) float64: the response's inner product at every coarse pixel, edges repeated."""
    margin = (len(taps) - RATIO) // 2
    wide = np.pad(np.asarray(fine, np.float64), ((0, 0), (margin, margin), (margin, margin)), mode="edge")
    rows, cols = fine.shape[1] // RATIO, fine.shape[2] // RATIO
    tall = np.zeros((len(fine), rows, wide.shape[2]))
    for k, tap in enumerate(taps):
        tall += tap * wide[:, k : k + RATIO * rows : RATIO]
    out = np.zeros((len(fine), rows, cols))
    for k, tap in enumerate(taps):
        out += tap * tall[:, :, k : k + RATIO * cols : RATIO]
    return out


def coefficients(x: Floats, z: Floats, weight: Floats, ridge: float = 0.0) -> Floats:
    """Covariates (p, n), bands (b, n) and weights (n,) without holes -> (b, p+1): intercept, then coefficients.

    Weighted least squares, with the penalty `ridge` times the sum of weights on squares of the coefficients of
    standardised covariates.
    """
    share = weight / weight.sum()
    middle, level = (x * share).sum(1), (z * share).sum(1)
    centred = x - middle[:, None]
    spread = np.sqrt((centred**2 * share).sum(1))
    varied = spread > FLAT
    out = np.zeros((len(z), len(x) + 1))
    if varied.any():
        standard = centred[varied] / spread[varied, None]
        # einsum, as the order of its sums does not depend on how many threads there are
        products = np.einsum("in,jn->ij", standard * share, standard)
        with_bands = np.einsum("in,bn->ib", standard * share, z - level[:, None])
        for band, wanted in enumerate(with_bands.T):
            solved = np.linalg.lstsq(products + ridge * np.eye(len(products)), wanted, rcond=1e-10)[0]
            out[band, 1:][varied] = solved / spread[varied]
    out[:, 0] = level - (out[:, 1:] * middle).sum(1)
    return out


def weights(model: Exponential, taps: Floats) -> Floats:
    """(s^2, (2w+1)^2) weights of the neighbours, by row, for every place in a coarse pixel, by row; each sums to 1."""
    side = len(taps) // RATIO
    cells = RATIO * (np.arange(side) - side // 2)
    place = np.arange(len(taps)) - (len(taps) - 1) / 2
    # between two supports only the step from point to point counts: h with itself, by step
    steps, own = np.arange(1 - len(taps), len(taps)), np.convolve(taps, taps[::-1])
    apart = RATIO * np.arange(1 - side, side)
    point = Exponential(1.0, model.range)
    by_step = point(np.hypot(*_lattice(apart[:, None] + steps)))
    between = np.einsum("aibj,i,j->ab", by_step, own, own)
    across = np.arange(side)[:, None] - np.arange(side) + side - 1
    system = np.ones((side**2 + 1,) * 2)
    system[-1, -1] = 0
    system[:-1, :-1] = between[across[:, None, :, None], across[None, :, None, :]].reshape((side**2,) * 2)
    inside = np.arange(RATIO) - (RATIO - 1) / 2
    to_point = point(np.hypot(*_lattice((cells[:, None] + place)[None] - inside[:, None, None])))
    target = np.ones((side**2 + 1, RATIO**2))
    target[:-1] = np.einsum("vaiwbj,i,j->abvw", to_point, taps, taps).reshape(side**2, RATIO**2)
    out: Floats = np.linalg.solve(system, target)[:-1].T
    return out


def _lattice(offsets: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Offsets along one axis as those along rows, and along columns, to be combined each with each."""
    return offsets.reshape(offsets.shape + (1,) * offsets.ndim), offsets


def _fused(
    covariates: Array,
    wanted: Floats,
    taps: Floats,
    lags: int,
    scheme: Scheme,
    ridge: float,
    grid: Grid,
    spare: bool = False,
) -> Floats | None:
    """ATPRK with these covariates, NaN where they or Landsat are NaN; with `spare` None if their cells are too few."""
    known = np.asarray(np.isfinite(covariates).all(axis=0))
    whole = np.where(known, covariates, np.float32(0))
    # sums in an order that the bands' own does not change: the same bits whatever that is
    whole = whole[np.argsort(whole.mean((1, 2)), kind="stable")]
    share = down(known[None].astype(np.float32), taps)[0]
    coarse = down(whole, taps) / np.where(share > 0, share, 1)
    seen = np.isfinite(wanted[0])
    used = np.asarray(seen & (share >= LEAST))
    weight = np.minimum(share[used], 1.0)
    # a window continued by its mirror image repeats its cells, which tells a regression nothing new
    weight *= _distinct(coarse[:, used]) / max(len(weight), 1)
    if spare and weight.sum() < CELLS * (len(covariates) + 1) - 1e-6:
        return None
    a = _regression(coarse[:, used], wanted[:, used], weight, wanted[:, seen].mean(1), scheme, ridge)
    residual = wanted - (a[:, :1, None] + _mixed(a[:, 1:], coarse))
    residual[:, ~used] = np.nan
    out = a[:, :1, None] + _mixed(a[:, 1:], whole)
    out += kriged(residual, taps, lags, grid)
    out[:, ~known | np.repeat(np.repeat(~seen, RATIO, 0), RATIO, 1)] = np.nan
    return out


def _distinct(cells: Floats) -> int:
    """How many of the columns (p, n) are unlike all others."""
    return int(np.unique(cells.astype(np.float32), axis=1).shape[1]) if cells.shape[1] else 0


def _regression(x: Floats, z: Floats, weight: Floats, level: Floats, scheme: Scheme, ridge: float) -> Floats:
    """(b, p+1) coefficients as the scheme wants them, of as many covariates as the cells allow; else `level` (b,)."""
    # the sum of shares is rounded
    cells = weight.sum() + 1e-6
    if scheme == "all" and cells >= CELLS * (len(x) + 1):
        return coefficients(x, z, weight, ridge)
    out = np.zeros((len(z), len(x) + 1))
    if cells < CELLS * 2:
        out[:, 0] = level
        return out
    centred = [v - (v * weight).sum(1)[:, None] / weight.sum() for v in (x, z)]
    spread = np.sqrt((centred[0] ** 2 * weight).sum(1) / weight.sum())
    likeness = np.einsum("in,bn->bi", centred[0] * weight, centred[1]) / np.maximum(spread, FLAT)
    for band, chosen in enumerate(likeness.argmax(1)):
        out[band, [0, chosen + 1]] = coefficients(x[chosen : chosen + 1], z[band : band + 1], weight, ridge)[0]
    return out


def kriged(residual: Floats, taps: Floats, lags: int, grid: Grid) -> Floats:
    """(b, h, w) at 30 m, NaN where unknown -> (b, 3h, 3w) at 10 m, area-to-point kriging of each band by its own
    semivariogram; unknown cells take the nearest residual there is."""
    side = len(taps) // RATIO
    _, rows, cols = residual.shape
    lambdas = np.stack(
        [weights(deconvolved(fitted(gamma, RATIO), lags, RATIO, grid), taps) for gamma in semivariogram(residual, lags)]
    )
    wide = np.pad(closed(residual)[0], ((0, 0), *((side // 2, side // 2),) * 2), mode="edge")
    out = np.zeros((len(residual), rows * RATIO, cols * RATIO))
    for place in range(RATIO**2):
        part = out[:, place // RATIO :: RATIO, place % RATIO :: RATIO]
        for i in range(side**2):
            up, left = divmod(i, side)
            part += lambdas[:, place, i, None, None] * wide[:, up : up + rows, left : left + cols]
    return out


def _mixed(a: Floats, covariates: NDArray[Any]) -> Floats:
    """(b, p) and (p, h, w) -> (b, h, w), one product after another: the same sums whatever the threads."""
    out = np.zeros((len(a), *covariates.shape[1:]))
    for p, covariate in enumerate(covariates):
        out += a[:, p, None, None] * covariate
    return out


__all__ = ["RIDGE", "atprk", "coefficients", "down", "kriged", "response", "weights"]
