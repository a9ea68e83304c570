"""From 10 m to 30 m and back: the degradation D and the bicubic enlargement every method shares."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from marstfn.bands import FINE, RATIO

Array = NDArray[np.float32]


def degrade(fine: Array, psf: Literal["block"] | float = "block") -> Array:
    """(b, H, W) at 10 m -> (b, H/3, W/3) at 30 m, float32: 3x3 mean, after a Gaussian of `psf` metres if a number.

    NaN spreads to every coarse pixel it touches. Raises ValueError where H or W is no multiple of 3.
    """
    bands, height, width = fine.shape
    if height % RATIO or width % RATIO:
        raise ValueError(f"image of {height} x {width} px does not divide into {RATIO} x {RATIO} px cells")
    if psf != "block":
        sigma = float(psf) / FINE
        if sigma < 0:
            raise ValueError(f"PSF of {psf} m is negative")
        fine = gaussian_filter(np.asarray(fine, np.float32), (0, sigma, sigma), mode="nearest")
    cells = np.asarray(fine, np.float64).reshape(bands, height // RATIO, RATIO, width // RATIO, RATIO)
    out: Array = cells.mean((2, 4)).astype(np.float32)
    return out


def upsample(coarse: Array, factor: float = RATIO) -> Array:
    """(b, h, w) -> (b, factor h, factor w), float32, bicubic (a = -0.75, edges repeated, corners not aligned)."""
    h, w = coarse.shape[-2:]
    size = (round(h * factor), round(w * factor))
    tensor = torch.from_numpy(np.ascontiguousarray(coarse, np.float32))[None]
    out: Array = torch.nn.functional.interpolate(tensor, size=size, mode="bicubic", align_corners=False)[0].numpy()
    return out
