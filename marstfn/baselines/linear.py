"""Sentinel-2 alone, interpolated in time: what Landsat must add to."""

from __future__ import annotations

import numpy as np

from marstfn.baselines.degrade import Array


def linear(s2: Array, landsat: Array, pan: Array | None = None) -> Array:
    """(6, H, W) at 10 m, already interpolated to the date (`marstfn.reference.Reference.between`) -> the same values,
    float32, in a new array; Landsat and pan are not used."""
    return np.array(s2, np.float32)
