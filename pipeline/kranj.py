"""Landsat and MODIS of the same days near Kranj: the one set here with a real coarse image of the reference's day.

Fields, town and forest in Slovenia, March 2020 (ImageFusion, BSD). Landsat at 30 m stands where Sentinel-2 would, MODIS
where Landsat would: the set has MODIS resampled smoothly to Landsat's grid, so its mean over 3 x 3 px is a picture of
90 m pixels that holds no more than the sensor's 500 m. The ratio of the grids is the one methods are written for; that
of the sensors is sixteen. Reading needs rasterio.

Landsat is taken as acquired, not as the source filled its gaps: what nobody saw is neither reference nor truth. MODIS
comes gap-filled only. Day 100 has Landsat and no MODIS, and is left out. 45 x 44 px become 45 x 42 by leaving out the
last two rows.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from marstfn.bands import BANDS
from marstfn.baselines import Array, degrade
from marstfn.comparison import Case
from marstfn.reference import Reference
from marstfn.scenes import Scene

FOLDER = "kranj-landsat-modis"
YEAR = 2020
DAYS = (68, 77, 93)
"""Of the year, with both sensors."""
ROWS, COLS = 42, 45
"""What divides into 3 x 3 px."""
GROUP = "Kranj: Landsat for Sentinel-2, MODIS for Landsat"
COUNTS = 1e-4
"""Reflectance of a Landsat count; MODIS comes as reflectance."""


def cases(root: str | Path) -> list[Case]:
    """Each of the three days from the nearest of the others before and after it, with MODIS of both days.

    MODIS stands in Landsat's frame by the mean difference of the two on the other days, band by band: a gain fitted to
    it would be that of its blur. Raises ImportError without rasterio, FileNotFoundError where the set is not whole.
    """
    folder = Path(root) / FOLDER
    fine = {day: _read(folder / "landsat" / "unfilled", day, COUNTS) for day in DAYS}
    coarse = {day: degrade(_read(folder / "modis" / "filled", day, 1.0)) for day in DAYS}
    return [_case(day, fine, coarse) for day in DAYS]


def _case(day: int, fine: dict[int, Array], coarse: dict[int, Array]) -> Case:
    others = [d for d in DAYS if d != day]
    apart = [np.nanmean(degrade(fine[d]) - coarse[d], axis=(1, 2), dtype=np.float64) for d in others]
    shift = np.mean(apart, axis=0).astype(np.float32)[:, None, None]
    before, after = (_side(day, [d for d in others if (d < day) == earlier], fine) for earlier in (True, False))
    reference = Reference(before[0], after[0], before[1], after[1])
    then = min(others, key=lambda d: abs(d - day))
    pan = np.full((1, ROWS * 2 // 3, COLS * 2 // 3), np.nan, np.float32)
    when = datetime(YEAR, 1, 1, 10, tzinfo=UTC) + timedelta(days=day - 1)
    view = Scene(when, reference, coarse[day] + shift, pan, fine[day])
    name = f"{when.date()} from {(when + timedelta(days=then - day)).date()}"
    return Case(name, GROUP, view, "real: ImageFusion, Kranj", False, coarse[then] + shift)


def _side(day: int, others: list[int], fine: dict[int, Array]) -> tuple[Array, Array]:
    """(6,H,W) of the nearest of the days, and (H,W) how far it lies; nothing where there is none."""
    if not others:
        return np.full_like(fine[day], np.nan), np.full(fine[day].shape[1:], np.inf, np.float32)
    nearest = min(others, key=lambda d: abs(d - day))
    known = np.isfinite(fine[nearest]).all(0)
    return fine[nearest], np.where(known, np.float32(abs(nearest - day)), np.float32(np.inf))


def _read(folder: Path, day: int, scale: float) -> Array:
    """(6, ROWS, COLS) reflectance float32, NaN where a band is missing."""
    import rasterio

    paths = sorted(folder.glob(f"{YEAR}{day:03d}_*.tif"))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no image of day {day:03d} of {YEAR}; this set is not whole")
    with rasterio.open(paths[0]) as source:
        if source.count != len(BANDS) or source.height < ROWS or source.width < COLS:
            raise FileNotFoundError(
                f"{paths[0]} has {source.count} bands of {source.height} x {source.width} px; this set has "
                f"{len(BANDS)} of at least {ROWS} x {COLS}. Take it from its source again"
            )
        values = source.read(masked=True).filled(np.nan)[:, :ROWS, :COLS]
    image: Array = (values * scale).astype(np.float32)
    image[:, ~np.isfinite(image).all(0)] = np.nan
    return image
