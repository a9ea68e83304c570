"""Sentinel-2 of the reference date plus the change that Landsat saw: S2 + up(L - D(S2))."""

from __future__ import annotations

from marstfn.baselines.degrade import Array, degrade, upsample


def additive(s2: Array, landsat: Array, pan: Array | None = None) -> Array:
    """(6, H, W) at 10 m and (6, H/3, W/3) at 30 m -> (6, H, W) reflectance, float32; pan is not used.

    Gives S2 back, to rounding, where L = D(S2). NaN in either spreads to the pixels that need it.
    """
    out: Array = s2 + upsample(landsat - degrade(s2))
    return out
