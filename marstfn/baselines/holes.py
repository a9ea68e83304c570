"""From 10 m to 30 m and back where pixels are missing: what is known decides, and a hole costs no neighbour."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from marstfn.baselines.degrade import Array, degrade, upsample

Number = TypeVar("Number", bound=np.floating[Any])


def degraded(fine: Array, psf: Literal["block"] | float = "block") -> Array:
    """(b,H,W) at 10 m -> (b,H/3,W/3) float32: `degrade` over what is known in a cell; NaN where nothing is.

    Without holes it is `degrade`. Raises ValueError as `degrade` does.
    """
    known = np.isfinite(fine)
    if known.all():
        return degrade(fine, psf)
    share = degrade(known.astype(np.float32), psf)
    there = known.reshape(len(fine), fine.shape[1] // 3, 3, fine.shape[2] // 3, 3).any((2, 4))
    total = degrade(np.where(known, fine, np.float32(0)), psf)
    out: Array = np.divide(total, share, out=np.full_like(total, np.nan), where=there)
    return out


def closed(coarse: NDArray[Number]) -> tuple[NDArray[Number], NDArray[np.bool_]]:
    """(b,h,w) with holes -> the same with the nearest cell known in all bands in place of each hole (0 where no cell
    is), and (h,w) where the holes were."""
    hole = np.asarray(np.isnan(coarse).any(axis=0))
    if not hole.any():
        return coarse, hole
    if hole.all():
        return np.zeros_like(coarse), hole
    rows, cols = distance_transform_edt(hole, return_distances=False, return_indices=True)
    return coarse[:, rows, cols], hole


def enlarged(coarse: Array) -> Array:
    """(b,h,w) at 30 m -> (b,3h,3w) float32, bicubic; NaN under holes and nowhere else."""
    filled, hole = closed(coarse)
    out = upsample(np.require(filled, requirements="W"))  # torch warns of arrays it must not write to
    if hole.any():
        out[:, np.repeat(np.repeat(hole, 3, 0), 3, 1)] = np.nan
    return out


__all__ = ["closed", "degraded", "enlarged"]
