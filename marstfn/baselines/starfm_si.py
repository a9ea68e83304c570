"""STARFM from two images: the coarse image of the reference date, which nobody took, is simulated from the fine one.

Wu, Cheng, Li, Li, Guan & Shen 2020, IEEE JSTARS 13:6206-6219 ("simplified input modality"): only F1 and C2 are given,
C1 is simulated, and STARFM (`marstfn.baselines.starfm`) does the rest.

The paper's text was not at hand; from its abstract and from those who used it:
* C1 = D(F1), the fine image brought to 30 m: its block mean, or the mean after a Gaussian of `psf` metres.
* `regression` brings C1 to the coarse sensor's radiometry, C1 = a D(F1) + b with a and b of each band from least
  squares of C2 on D(F1). Across dates such a line also holds the season's mean change, which then is no longer
  predicted. Inputs in one radiometric frame do not need it, and it is off.
* S = |F1 - C1| is here the detail a 30 m pixel loses, not a difference of two sensors: candidates and weight go to
  pixels from homogeneous surroundings.
* Window and number of classes are unknown: 31 px and 4, as for STARFM.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from marstfn.baselines.check import checked
from marstfn.baselines.degrade import Array
from marstfn.baselines.holes import degraded
from marstfn.baselines.starfm import starfm


def starfm_si(
    s2: Array,
    landsat: Array,
    pan: Array | None = None,
    *,
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
    psf: Literal["block"] | float = "block",
    regression: bool = False,
    threads: int = 0,
) -> Array:
    """(b,H,W) reflectance of the target date, float32, from F1 `s2` (b,H,W) and C2 `landsat` (b,H/3,W/3); pan is not
    used (Wu et al. 2020). Parameters as `starfm` has them.

    NaN where either has a hole. Raises ValueError on inputs as `checked` does and on parameters out of range.
    """
    fine, now, _ = checked(s2, landsat, pan)
    then = degraded(fine, psf)
    if regression:
        then = _fitted(then, now)
    # a cell of which nothing is known shows nothing, but is no hole of a coarse image
    return starfm(
        fine,
        now,
        coarse_then=np.where(np.isnan(then), now, then),
        window=window,
        classes=classes,
        weights=weights,
        temporal=temporal,
        strict=strict,
        spread=spread,
        fine_uncertainty=fine_uncertainty,
        coarse_uncertainty=coarse_uncertainty,
        distance=distance,
        scale=scale,
        threads=threads,
    )


def _fitted(then: Array, now: Array) -> Array:
    """(b,h,w) a `then` + b of each band, by least squares of `now`; bands without spread keep their values and take
    the mean difference."""
    out = then.copy()
    for band, (x, y) in enumerate(zip(then, now, strict=True)):
        known = np.isfinite(x) & np.isfinite(y)
        if not known.any():
            continue
        a, b = x[known].astype(np.float64), y[known].astype(np.float64)
        centred = a - a.mean()
        power = float(centred @ centred)
        slope = float(centred @ b) / power if power > 1e-12 * a.size else 1.0
        out[band] = b.mean() + slope * (x - a.mean())
    return out


__all__ = ["starfm_si"]
