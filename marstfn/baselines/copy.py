"""The reference alone, as if nothing had changed: what Landsat must beat."""

from __future__ import annotations

import numpy as np

from marstfn.baselines.degrade import Array


def copy(s2: Array, landsat: Array, pan: Array | None = None) -> Array:
    """(6, H, W) at 10 m -> the same values, float32, in a new array; Landsat and pan are not used."""
    return np.array(s2, np.float32)
