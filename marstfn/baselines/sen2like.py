"""Sen2Like's fusion: Landsat enlarged, and the detail of Sentinel-2 that 30 m pixels lose put on top.

Saunier, Pflug, Lobos et al. 2022, Remote Sensing 14:3855, and what ESA's processor of that name does (its step
S2L_Fusion, from Level-2H at 30 m to Level-2F at Sentinel-2's own pixels). For every band by itself, with P the
Sentinel-2 image predicted for the date:

    F2 = U(C2) + (P - U(D(P)))

U enlarges linearly, D is the block mean; the second term is P's high-pass part. U is linear, so that
F2 = P + U(C2 - D(P)): `additive` with a linear in place of a cubic U. The difference is in the edges of what changed,
which U spreads wider and without overshoot. Nothing searches, fits or weighs.

What the processor does beside this and is left to others here, since it concerns P and not the fusion:
* P is extrapolated per pixel by a straight line through the last two Sentinel-2 products before the date, where both
  are clear, else it is the one that is clear (all of it, where only one product exists: "composite"). Here P is
  whatever reference it is given, as for all methods: with `between` of a reference it is the processor's line, through
  one date on either side in place of two before.
* The 20 m bands are fused on their own 20 m grid, with a cubic D. Here all bands are on the 10 m grid.
* Reflectance is clipped to -1...1, since the library that enlarges asks for it, and D(P) rounded to whole counts.
* A share of fused over Landsat reflectance is written as a mask of quality; it changes no value.

Where cells are missing U goes by those that are known; the processor has no rule for them and writes 0.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import zoom

from marstfn.bands import RATIO
from marstfn.baselines.check import checked, unknown
from marstfn.baselines.degrade import Array
from marstfn.baselines.holes import closed, degraded


def sen2like(s2: Array, landsat: Array, pan: Array | None = None) -> Array:
    """(b,H,W) reflectance, float32, from `s2` (b,H,W) at 10 m and `landsat` (b,H/3,W/3) at 30 m; pan is not used
    (Saunier et al. 2022: s2 + U(landsat - D(s2)) with a linear U).

    Gives s2 back, to rounding, where landsat = D(s2). NaN where either has a hole. Raises ValueError as `checked` does.
    """
    fine, now, _ = checked(s2, landsat, pan)
    change, _ = closed(now - degraded(fine))
    # half-pixel centres; beyond the outermost centres the image is mirrored, as the processor has it
    spread = zoom(change, (1, RATIO, RATIO), order=1, mode="mirror", grid_mode=True)
    out: Array = np.where(unknown(fine, now), np.float32(np.nan), fine + spread)
    return out


__all__ = ["sen2like"]
