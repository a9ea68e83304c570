"""What every method asks of its inputs before it looks at a pixel."""

from __future__ import annotations

import numpy as np

from marstfn.bands import RATIO
from marstfn.baselines.degrade import Array

BRIGHTEST = 3.0
"""Reflectance that no ground has as its median: beyond it the numbers are digital numbers."""


def checked(s2: Array, landsat: Array, pan: Array | None = None) -> tuple[Array, Array, Array | None]:
    """The same images as float32: s2 (b,H,W) at 10 m, landsat (b,H/3,W/3) at 30 m, pan (1,2H/3,2W/3) at 15 m or None.

    Raises ValueError where the shapes do not nest, bands differ in number, an image is empty or holds infinities, or
    holds digital numbers in place of reflectance.
    """
    fine, coarse = np.asarray(s2, np.float32), np.asarray(landsat, np.float32)
    sharp = None if pan is None else np.asarray(pan, np.float32)
    for name, image in (("Sentinel-2", fine), ("Landsat", coarse), ("pan", sharp)):
        if image is None:
            continue
        if image.ndim != 3 or not image.size:
            raise ValueError(f"{name} of shape {image.shape} is no image; give (bands, rows, columns)")
        if np.isinf(image).any():
            raise ValueError(f"{name} holds infinite values; mark what is unknown as NaN")
        known = image[np.isfinite(image)]
        if known.size and float(np.median(np.abs(known))) > BRIGHTEST:
            raise ValueError(
                f"{name} has a median of {float(np.median(known)):.0f}: digital numbers, not reflectance of 0 to 1; "
                "apply the product's scale and offset first"
            )
    (bands, height, width), (others, rows, cols) = fine.shape, coarse.shape
    if (height, width) != (RATIO * rows, RATIO * cols):
        raise ValueError(
            f"Sentinel-2 of {height} x {width} px is not {RATIO} times Landsat's {rows} x {cols} px; cut both to one "
            "window whose corners lie on multiples of 30 m"
        )
    if bands != others:
        raise ValueError(f"Sentinel-2 has {bands} bands and Landsat {others}; give the same bands in the same order")
    if sharp is not None and (len(sharp) != 1 or sharp.shape[1:] != (2 * rows, 2 * cols)):
        raise ValueError(f"pan of shape {sharp.shape} is not (1, {2 * rows}, {2 * cols}), twice Landsat's pixels")
    return fine, coarse, sharp


def unknown(s2: Array, landsat: Array) -> np.ndarray:
    """(H,W) bool: where either image has a hole in any band."""
    holes = np.isnan(landsat).any(axis=0)
    out: np.ndarray = np.isnan(s2).any(axis=0) | np.repeat(np.repeat(holes, RATIO, 0), RATIO, 1)
    return out


__all__ = ["checked", "unknown"]
