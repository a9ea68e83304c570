"""The one real place where Landsat 8 and Sentinel-2 saw the same ground on the same day, as scenes for evaluation.

Farmland and a small town near Wervik (WorldCereal, MIT). Never used in training. Reading needs netCDF4.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from marstfn.baselines import Array, degrade
from marstfn.observe import bilinear20, half_pixel
from marstfn.reference import Reference
from marstfn.scenes import Scene
from marstfn.series import CLEAR, netcdf
from marstfn.simulate.spectra import OLI_FROM_MSI

FOLDER = "flanders-l8-s2-series"
SAME_DAY = (date(2018, 8, 2), date(2018, 10, 21))
NEAR = (
    (date(2018, 2, 23), date(2018, 2, 25)),
    (date(2018, 10, 5), date(2018, 10, 6)),
    (date(2018, 7, 17), date(2018, 7, 15)),
)
"""Landsat and Sentinel-2 days one or two days apart, both clear."""

HAZE = 0.01
"""Blue reflectance by which a hazy day's dark ground is brighter than its neighbours'."""

SIDE = 60
"""Of the scenes, in 10 m pixels: the window has 64, and the lattice begins at its corner."""

FILL, CLEAR_LAND, CLEAR_WATER = 64537, 322, 324


@dataclass(frozen=True)
class Place:
    """Sentinel-2 (t,6,60,60) and Landsat on the lattice (u,6,20,20), float32, NaN where unknown or masked, by day."""

    s2: dict[date, Array]
    landsat: dict[date, Array]


def read(root: str | Path) -> Place:
    """The series under `root`, faults undone: repeated Landsat pixels, wrapped negatives, 20 m bands a row too low."""
    folder = Path(root) / FOLDER
    ten = netcdf(next(folder.glob("S2_L2A_10m_*.nc")), ("B02", "B03", "B04", "timestamp"))
    half = netcdf(next(folder.glob("S2_L2A_20m_*.nc")), ("B8A", "B11", "B12", "SCL"))
    s2: dict[date, Array] = {}
    for k, day in enumerate(_days(ten["timestamp"], datetime(2017, 8, 4, 10, 53, 28, tzinfo=UTC))):
        clear = np.isin(half["SCL"][k], CLEAR)
        if clear.mean() < 0.95:
            continue
        twenty = bilinear20(np.stack([half[b][k] for b in ("B8A", "B11", "B12")]).astype(np.float32))
        # as in the other series of this source, the 20 m bands stand one 10 m row too far south
        twenty = np.concatenate([twenty[:, 1:], twenty[:, -1:]], 1)
        image = np.concatenate([np.stack([ten[b][k] for b in ("B02", "B03", "B04")]), twenty]) * np.float32(1e-4)
        image[:, (image <= 0).any(0)] = np.nan
        s2[day] = image[:, :SIDE, :SIDE].astype(np.float32)
    bands = tuple(f"B{n:02d}" for n in range(2, 8))
    oli = netcdf(next(folder.glob("L8_SR_10m_*.nc")), (*bands, "pixel_qa", "timestamp"))
    landsat: dict[date, Array] = {}
    for k, day in enumerate(_days(oli["timestamp"], datetime(2017, 8, 15, 10, 40, 28, tzinfo=UTC))):
        if day not in landsat:
            landsat[day] = _on_lattice(np.stack([oli[b][k] for b in bands]), oli["pixel_qa"][k])
    return Place(s2, landsat)


def scenes(place: Place, least: int = 1) -> dict[str, Scene]:
    """Same-day and near-day pairs as scenes, the Sentinel-2 of the pair being the truth; references are the nearest
    clear days before and after, at least `least` days away from Landsat's day, hazy ones and the truth's day left out.

    Landsat stands in the MSI frame by the band-pass and a linear fit on the other clear pairs, not on the pair itself.
    """
    found: dict[str, Scene] = {}
    veiled = hazy(place)
    for day, seen in (*((d, d) for d in SAME_DAY), *NEAR):
        if day not in place.landsat or seen not in place.s2:
            continue
        usable = [d for d in place.s2 if d not in (seen, *veiled) and abs((d - day).days) >= least]
        before = max((d for d in usable if d < day), default=None)
        after = min((d for d in usable if d > day), default=None)
        gain, offset = fit(place, day)
        coarse = (place.landsat[day] * gain[:, None, None] + offset[:, None, None]).astype(np.float32)
        truth = place.s2[seen]
        coarse[:, np.isnan(degrade(truth)).any(0)] = np.nan
        noon = datetime(day.year, day.month, day.day, tzinfo=UTC)
        pan = np.full((1, SIDE * 2 // 3, SIDE * 2 // 3), np.nan, np.float32)
        around = _around(place, day, before, after)
        found[f"{day} as {seen}"] = Scene(noon, around, coarse, pan, np.nan_to_num(truth))
    return found


def hazy(place: Place) -> tuple[date, ...]:
    """Sentinel-2 days whose dark ground is too bright in blue: their 10 % quantile of blue stands more than HAZE above
    the median of that of all days within 45 days. Thin cloud that the scene classes call clear."""
    dark = {day: float(np.nanquantile(image[0], 0.1)) for day, image in place.s2.items()}
    out = []
    for day, value in dark.items():
        near = [v for other, v in dark.items() if abs((other - day).days) <= 45]
        if value - float(np.median(near)) > HAZE:
            out.append(day)
    return tuple(out)


def _around(place: Place, day: date, before: date | None, after: date | None) -> Reference:
    images, days = [], []
    for other in (before, after):
        image = place.s2[other] if other else np.full((6, SIDE, SIDE), np.nan, np.float32)
        known = ~np.isnan(image).any(0)
        gap = abs((day - other).days) if other else np.inf
        images.append(image)
        days.append(np.where(known, np.float32(gap), np.float32(np.inf)).astype(np.float32))
    return Reference(images[0], images[1], days[0], days[1])


def fit(place: Place, excluded: date) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Slope and intercept (6) that bring Landsat to Sentinel-2 over all clear pairs but that of the day `excluded`."""
    pairs = [pair for pair in (*((d, d) for d in SAME_DAY), *NEAR) if pair[0] != excluded]
    x, y = [], []
    for landsat, s2 in pairs:
        if landsat not in place.landsat or s2 not in place.s2:
            continue
        coarse, target = place.landsat[landsat], degrade(place.s2[s2])
        known = np.isfinite(coarse).all(0) & np.isfinite(target).all(0)
        x.append(coarse[:, known])
        y.append(target[:, known])
    source, wanted = np.concatenate(x, 1), np.concatenate(y, 1)
    lines = np.array([np.polyfit(a, b, 1) for a, b in zip(source, wanted, strict=True)], np.float64)
    return lines[:, 0], lines[:, 1]


def _on_lattice(repeated: NDArray[np.uint16], qa: NDArray[np.uint16]) -> Array:
    """(6,64,64) counts, each Landsat pixel 3 x 3 times, -> (6,20,20) MSI-frame reflectance on Sentinel-2's lattice."""
    counts = repeated[:, 2:62:3, 1:64:3].astype(np.float64)
    clear = np.isin(qa[2:62:3, 1:64:3], (CLEAR_LAND, CLEAR_WATER)) & (counts != FILL).all(0) & (counts != 0).all(0)
    values = np.where(counts > 32768, counts - 65536, counts) * 1e-4
    slope, intercept = (np.asarray(v, np.float64)[:, None, None] for v in OLI_FROM_MSI["sentinel-2a"])
    msi = (values - intercept) / slope
    hidden = ~clear
    touched = hidden[1:-2, 1:-2] | hidden[2:-1, 1:-2] | hidden[1:-2, 2:-1] | hidden[2:-1, 2:-1]
    middle = half_pixel(msi)
    middle[:, touched] = np.nan
    # native edges lie on the lattice's pixel centres; the first middle is lattice pixel (2, 2)
    out = np.full((6, SIDE // 3, SIDE // 3), np.nan, np.float32)
    rows, cols = min(middle.shape[1], SIDE // 3 - 2), min(middle.shape[2], SIDE // 3 - 2)
    out[:, 2 : 2 + rows, 2 : 2 + cols] = middle[:, :rows, :cols]
    return out


def _days(seconds: NDArray[np.int64], epoch: datetime) -> list[date]:
    start = epoch.timestamp()
    return [datetime.fromtimestamp(start + float(s), UTC).date() for s in seconds]
