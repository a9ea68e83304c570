"""Sentinel-2 around a date: what was seen before it and after it, pixel by pixel, and what follows for the date."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marstfn.baselines.degrade import Array

FILL = -9999
"""Age of a pixel that no reference serves, as the cube stores it."""
LONG = 60.0
"""Days that count as 1 in a network's context; a reference as old, or missing, counts as 1 as well."""
CHANNELS = 8
"""Of the context: six differences and two ages."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Clear Sentinel-2 of other dates, reflectance float32, NaN where there is none.

    `before`, `after`: (6, H, W), each pixel of the nearest clear day on its side of the date, the date itself counting
    as before; `days_before`, `days_after`: (H, W) float32, days from there to the date, 0 or more, inf where none.
    """

    before: Array
    after: Array
    days_before: Array
    days_after: Array

    @classmethod
    def single(cls, s2: Array, age: int) -> Reference:
        """One image `age` days before the date (negative: after it)."""
        nothing = np.full_like(s2, np.nan)
        known = ~np.isnan(s2).any(0)
        days = np.where(known, np.float32(abs(age)), np.float32(np.inf)).astype(np.float32)
        none = np.full(known.shape, np.inf, np.float32)
        if age < 0:
            return cls(nothing, s2, none, days)
        return cls(s2, nothing, days, none)

    def nearest(self) -> Array:
        """(6, H, W) of the nearer side; the earlier one where both are as near: it cannot have seen what came later."""
        out: Array = np.where(self.days_after < self.days_before, self.after, self.before)
        return out

    def age(self) -> NDArray[np.int16]:
        """(H, W) days from the nearest reference to the date, negative where it lies after; FILL where none is."""
        later = self.days_after < self.days_before
        days = np.where(later, -self.days_after, self.days_before)
        return np.where(np.isfinite(days), days, FILL).astype(np.int16)

    def between(self) -> Array:
        """(6, H, W) linear in time between both sides; the one side where the other is missing."""
        weight = self._weight()
        both = (weight > 0) & (weight < 1)
        mixed = self.before * weight + self.after * (1 - weight)
        out: Array = np.where(both, mixed, np.where(weight >= 1, self.before, self.after)).astype(np.float32)
        return out

    def context(self) -> Array:
        """(8, H, W) without NaN: after minus before (0 where one is missing), then both distances in time, in units of
        LONG and at most 1 (1 where there is none)."""
        both = np.isfinite(self.days_before) & np.isfinite(self.days_after)
        step = np.where(both, self.after - self.before, 0)
        ages = np.minimum(np.stack([self.days_before, self.days_after]) / LONG, 1)
        return np.concatenate([np.nan_to_num(step), ages]).astype(np.float32)

    def cut(self, rows: slice, cols: slice) -> Reference:
        """The same of a part of the window."""
        return Reference(
            self.before[:, rows, cols],
            self.after[:, rows, cols],
            self.days_before[rows, cols],
            self.days_after[rows, cols],
        )

    def _weight(self) -> Array:
        """Share of `before` in the interpolation."""
        earlier, later = np.isfinite(self.days_before), np.isfinite(self.days_after)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = self.days_after / (self.days_before + self.days_after)
        out: Array = np.where(earlier & later, share, np.where(earlier, 1, 0)).astype(np.float32)
        return out


__all__ = ["CHANNELS", "FILL", "LONG", "Reference"]
