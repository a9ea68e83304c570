"""A Landsat date at three times the pixel, where Landsat as it came is the truth: Wald's protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marstfn.bands import RATIO
from marstfn.baselines.degrade import Array, degrade
from marstfn.methods import Method
from marstfn.patches import fill_holes
from marstfn.reference import Reference

STEP = 18
"""Sides of what is reduced are multiples of this, in 10 m pixels: 6 px at 30 m, where 30, 45 and 90 m share corners."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A date whose `truth` (6,h,w) is known on the pixels of its `reference`; `landsat` (6,h/3,w/3), `pan`
    (1,2h/3,2w/3) or None: reflectance float32, NaN where nothing is known. At reduced scale of 30, 90 and 45 m."""

    reference: Reference
    landsat: Array
    pan: Array | None
    truth: Array

    @property
    def scored(self) -> NDArray[np.bool_]:
        """(h,w) where Landsat saw the ground, there is a reference, and the truth is known."""
        seen = np.repeat(np.repeat(~np.isnan(self.landsat).any(0), RATIO, 0), RATIO, 1)
        served = np.isfinite(self.reference.days_before) | np.isfinite(self.reference.days_after)
        return np.asarray(seen & served & ~np.isnan(self.truth).any(0))


def reduced(reference: Reference, landsat: Array, pan: Array | None = None) -> Trial:
    """The same date with every input averaged over 3 x 3 of its pixels; a hole takes what it touches.

    `reference` (6,H,W), `landsat` (6,H/3,W/3) in the frame of the reference, `pan` (1,2H/3,2W/3); H and W multiples of
    STEP, else ValueError. The block mean stands for the sensors' PSF: what real Landsat is nearest to.
    """
    height, width = reference.days_before.shape
    if height % STEP or width % STEP:
        raise ValueError(f"{height} x {width} px are no multiples of {STEP} px; cut the window")
    before, after = degrade(reference.before), degrade(reference.after)
    days = [_oldest(d, image) for d, image in ((reference.days_before, before), (reference.days_after, after))]
    coarser = None if pan is None else degrade(pan)
    return Trial(Reference(before, after, days[0], days[1]), degrade(landsat), coarser, np.asarray(landsat))


def squared_errors(views: Sequence[Trial], method: Method, patch: int) -> list[Array]:
    """By view (h,w) the squared error of `method`, mean over bands, NaN outside `scored`; each view is one patch of
    side `patch`, continued by its mirror image where it is smaller. All views have pan, or the method takes none."""
    if not views:
        return []
    made = []
    for view in views:
        pad = [patch - n for n in view.truth.shape[1:]]
        if min(pad) < 0:
            raise ValueError(f"{view.truth.shape[1:]} px at 30 m are more than one patch of {patch} px")
        images = (method.reference(view.reference), view.landsat, view.pan)
        fine, coarse, sharp = (_mirrored(a, pad, f) for a, f in zip(images, (1, 3, 1.5), strict=True))
        context = _mirrored(view.reference.context(), pad, 1) if method.context else None
        assert fine is not None
        assert coarse is not None
        made.append((*fill_holes(fine, coarse, sharp), context))
    fine, coarse, sharp, context = (
        None if any(a is None for a in column) else np.stack([a for a in column if a is not None])
        for column in zip(*made, strict=True)
    )
    assert fine is not None
    assert coarse is not None
    out = []
    for view, image in zip(views, method.predict(fine, coarse, sharp, context), strict=True):
        bands, height, width = view.truth.shape
        error = np.square(image[:bands, :height, :width] - view.truth).mean(0, dtype=np.float64)
        out.append(np.where(view.scored, error, np.nan).astype(np.float32))
    return out


def _oldest(days: Array, image: Array) -> Array:
    """The largest of 3 x 3 distances; inf where the mean has a hole."""
    height, width = days.shape
    cells = days.reshape(height // RATIO, RATIO, width // RATIO, RATIO).max((1, 3))
    return np.where(np.isnan(image).any(0), np.float32(np.inf), cells)


def _mirrored(values: Array | None, pad: Sequence[int], factor: float) -> Array | None:
    if values is None or not any(pad):
        return values
    return np.pad(values, [(0, 0), *((0, round(p / factor)) for p in pad)], mode="symmetric")
