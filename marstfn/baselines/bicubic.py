"""Landsat alone, enlarged: what the reference must beat."""

from __future__ import annotations

from marstfn.baselines.degrade import Array, upsample


def bicubic(s2: Array, landsat: Array, pan: Array | None = None) -> Array:
    """(6, H/3, W/3) at 30 m -> (6, H, W) reflectance, float32; Sentinel-2 and pan are not used."""
    return upsample(landsat)
