"""Which Sentinel-2 days may serve each Landsat date as its reference, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pipeline.plan import Options

LEAST_CLEAR = 0.02
"""A Sentinel-2 day clear in less than this share of the area is not worth its place in the list."""
PATCHWORK_DAYS = 6.0
"""Days farther that a day of clear sky may lie and still go before a wholly clouded one: each cloud hole filled from
another day cuts the reference into pieces of different dates."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A Landsat date and its candidate references, best first; indices count along each sensor's own time axis."""

    landsat: int
    references: tuple[int, ...]
    days: tuple[int, ...]
    """Landsat day minus reference day; negative where the reference lies after, 0 counts as before."""
    clear: tuple[float, ...]
    """Share of the whole area in which each reference is clear."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON would have it."""
        # asked of a year's pairs for each of thousands of tiles: dataclasses.asdict, which copies deeply, takes 20 us
        lists = {"references": list(self.references), "days": list(self.days), "clear": list(self.clear)}
        return {"landsat": self.landsat, **lists}


def pair(
    landsat: Sequence[datetime], sentinel2: Sequence[datetime], clear: Sequence[float], options: Options
) -> tuple[Pair, ...]:
    """For each Landsat time the Sentinel-2 days that may serve it, before or after, the best first.

    Per pixel and side the first clear one wins, so the list is one for the whole area: neighbouring tiles compose the
    same references and leave no seam. `clear`: share of the area in which each Sentinel-2 day is clear, 0..1.
    Days nearer than `min_reference_days` or farther than `max_reference_days` are left out, before and after alike; of
    the others at most `max_references` a side are kept.
    """
    if len(clear) != len(sentinel2):
        raise ValueError(f"{len(clear)} clear fractions for {len(sentinel2)} Sentinel-2 days")
    out = []
    for index, when in enumerate(landsat):
        gaps = [day_gap(when, other) for other in sentinel2]
        usable = [
            j
            for j, gap in enumerate(gaps)
            if options.min_reference_days <= abs(gap) <= options.max_reference_days and clear[j] >= LEAST_CLEAR
        ]
        # ties go to the earlier day: it cannot have seen what had not happened yet
        usable.sort(key=lambda j: (abs(gaps[j]) + PATCHWORK_DAYS * (1 - clear[j]), -gaps[j]))
        sides = [[j for j in usable if (gaps[j] < 0) == later][: options.max_references] for later in (False, True)]
        chosen = [j for j in usable if j in sides[0] or j in sides[1]]
        out.append(
            Pair(index, tuple(chosen), tuple(gaps[j] for j in chosen), tuple(round(clear[j], 4) for j in chosen))
        )
    return tuple(out)


def day_gap(later: datetime, earlier: datetime) -> int:
    """Whole days from `earlier` to `later` (negative if it is the other way round), rounded: overpasses differ by
    minutes in the time of day."""
    return round((later - earlier).total_seconds() / 86400)


def clear_fractions(counts: Sequence[ArrayLike]) -> list[float]:
    """Share of all pixels that are clear, by date, from (tiles, dates, [clear, masked, nothing]) counts."""
    if not len(counts):
        return []
    sums = np.sum(np.stack([np.asarray(tile, np.int64) for tile in counts]), axis=0)
    totals = sums.sum(axis=1)
    shares: list[float] = np.where(totals > 0, sums[:, 0] / np.maximum(1, totals), 0.0).tolist()
    return shares
