"""How crops, grass and trees change over the year: double-logistic green cover cut by harvest, mowing and ploughing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from marstfn.simulate.hashing import F32, U32, key, mixed, normal, uniform
from marstfn.simulate.style import CROPS, Style

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Crop:
    """Calendar of a crop in days of the harvest year (negative: the autumn before), and its full-cover spectrum."""

    rise: float
    rise_days: float
    fall: float
    fall_days: float
    harvest: float
    peak: float
    autumn: float = 0.0
    """Green cover before winter."""
    emergence: float = 0.0
    straw: float = 0.0
    """Dry cover left after harvest."""
    spectrum: tuple[float, ...] = (0.024, 0.058, 0.026, 0.46, 0.18, 0.080)
    flower: float = 0.0
    """Days of the year on which flowers are at their peak (0: none to be seen from above)."""


GROWN = {
    "winter wheat": Crop(100, 9, 180, 6, 203, 0.95, 0.42, -78, 0.55, (0.020, 0.050, 0.022, 0.46, 0.16, 0.07)),
    "winter rape": Crop(88, 8, 176, 7, 196, 0.95, 0.50, -108, 0.45, (0.026, 0.068, 0.030, 0.52, 0.22, 0.09), 124),
    "spring barley": Crop(122, 7, 192, 6, 212, 0.92, 0, 95, 0.5, (0.025, 0.060, 0.029, 0.42, 0.19, 0.085)),
    "maize": Crop(166, 7, 262, 9, 266, 0.95, 0, 138, 0.4, (0.021, 0.054, 0.024, 0.44, 0.19, 0.08)),
    "beet": Crop(160, 8, 330, 14, 287, 0.95, 0, 125, 0.15, (0.026, 0.070, 0.028, 0.58, 0.19, 0.075)),
    "soybean": Crop(174, 7, 252, 6, 272, 0.94, 0, 148, 0.3, (0.024, 0.070, 0.028, 0.59, 0.23, 0.10)),
    "potato": Crop(158, 6, 236, 7, 254, 0.92, 0, 138, 0.1, (0.026, 0.064, 0.030, 0.50, 0.20, 0.085)),
    "grassland": Crop(92, 14, 312, 18, 999, 0.90, 0.62, -200, 0, (0.028, 0.070, 0.036, 0.42, 0.21, 0.10)),
    "fallow": Crop(130, 20, 250, 20, 999, 0.45, 0.12, -200, 0, (0.036, 0.075, 0.060, 0.34, 0.24, 0.13)),
}
FLOWERS = np.array((0.012, 0.075, 0.085, 0.02, 0.02, 0.01), np.float32)
"""What a rape field in full bloom adds to its green spectrum."""


@dataclass(frozen=True, slots=True)
class States:
    """Parcels (n,) on one day: cover fractions, their daily growth, and the spectra of green and soil, float32."""

    green: F32
    growth: F32
    """Change of green cover a day, for pixels a few days ahead or behind their parcel."""
    dry: F32
    tilled: F32
    """How rough and dark recent tillage left the soil, 0..1."""
    spectrum: F32
    """(6, n) reflectance of the parcel's full green cover."""


def crop_of(parcels: U32, year: int, style: Style) -> NDArray[np.int64]:
    """Index into CROPS that each parcel (n,) carries for the harvest of `year`; grassland stays grassland."""
    shares = np.array(style.crops) / sum(style.crops)
    grass = CROPS.index("grassland")
    stays = uniform(mixed(parcels, 102)) < shares[grass]
    shares[grass] = 0.0
    rotating = np.cumsum(shares) / max(shares.sum(), 1e-9)
    crop = np.searchsorted(rotating, uniform(mixed(parcels, 101, year)), side="right").clip(0, len(CROPS) - 1)
    return np.where(stays, grass, crop)


def states(parcels: U32, day: date, style: Style) -> States:
    """What stands on each parcel (n,) of hash `parcels` on `day`."""
    doy = day.timetuple().tm_yday
    this, following = crop_of(parcels, day.year, style), crop_of(parcels, day.year + 1, style)
    spread = style.season_spread
    late = style.season_shift + spread * normal(mixed(parcels, 103, day.year)).astype(np.float64)
    late_next = style.season_shift + spread * normal(mixed(parcels, 103, day.year + 1)).astype(np.float64)
    green, growth, dry, tilled = (np.zeros(len(parcels)) for _ in range(4))
    spectrum = np.zeros((6, len(parcels)))
    tint = 1 + 0.09 * normal(mixed(parcels, 104, np.arange(6)[:, None])).astype(np.float64)
    # day, counted in the following harvest year, on which this year's crop leaves the land
    left = np.full(len(parcels), -np.inf)
    passes = ((this, late, float(doy)), (following, late_next, float(doy - _year_days(day.year))))
    for grown, shifts, since in passes:
        for index in np.unique(grown):
            name, chosen = CROPS[int(index)], grown == index
            crop, shift = GROWN[CROPS[int(index)]], shifts[chosen]
            stage = _stage(crop, name, parcels[chosen], since, shift, day.year + (since < 0), left[chosen])
            takes = stage.present
            mine = np.zeros(len(parcels), bool)
            mine[chosen] = takes
            green[mine], growth[mine] = stage.green[takes], stage.growth[takes]
            dry[mine], tilled[mine] = stage.dry[takes], stage.tilled[takes]
            if since > 0:
                left[chosen] = stage.leaves - _year_days(day.year)
            colour = np.array(crop.spectrum)[:, None] * tint[:, chosen]
            if crop.flower:
                bloom = np.exp(-(((since - crop.flower - shift) / 11.0) ** 2))
                colour = colour + FLOWERS[:, None] * bloom
            spectrum[:, mine] = colour[:, takes]
    # poor ground carries thinner stands, every year
    stand = 1 - 0.22 * uniform(mixed(parcels, 115)).astype(np.float64) ** 2
    green, growth, dry = green * stand, growth * stand, dry * stand
    return States(_settled(green), _settled(growth), _settled(dry), _settled(tilled), _settled(spectrum))


@dataclass(frozen=True, slots=True)
class _Stage:
    present: NDArray[np.bool_]
    green: F64
    growth: F64
    dry: F64
    tilled: F64
    leaves: F64


def _stage(crop: Crop, name: str, parcels: U32, since: float, shift: F64, year: int, free: F64) -> _Stage:
    """One crop's season at day `since` of its harvest year, on land that is free from day `free` on.

    `present` where the crop has the land, `leaves` the day from which the next may have it.
    """
    t = since - shift
    if name in ("grassland", "fallow"):
        # permanent cover: only the calendar year's own curve counts
        present = np.full(len(parcels), since >= 0)
        amount = crop.peak - crop.autumn
        green = crop.autumn + amount * (_rise(t, crop.rise, crop.rise_days) - _rise(t, crop.fall, crop.fall_days))
        growth = amount * (_slope(t, crop.rise, crop.rise_days) - _slope(t, crop.fall, crop.fall_days))
        if name == "grassland":
            cut = _mown(parcels, since, year)
            green, growth = green * (1 - cut), growth * (1 - cut)
        until = np.full(len(parcels), np.inf if name == "grassland" else 255.0)
        return _Stage(present, green, growth, 0.25 * (1 - green), np.zeros(len(parcels)), until)
    jitter = normal(mixed(parcels, 105, year)).astype(np.float64)
    harvest = np.round(crop.harvest + shift + 7 * jitter)
    lag = uniform(mixed(parcels, 106, year)).astype(np.float64)
    plough = harvest + np.round(4 + 70 * lag * lag)
    end = 320 + np.round(40 * uniform(mixed(parcels, 107, year)).astype(np.float64))
    start = crop.emergence - 25 + shift
    standing = since < harvest
    # sown late after a late harvest, a winter crop comes up late
    emerges = np.maximum(crop.emergence + 14 + shift, free + 24)
    up, up_slope = crop.autumn * _rise(since - emerges, 0, 8), crop.autumn * _slope(since - emerges, 0, 8)
    green = up + (crop.peak - crop.autumn) * _rise(t, crop.rise, crop.rise_days)
    ripe = _rise(t, crop.fall, crop.fall_days)
    growth = (up_slope + (crop.peak - crop.autumn) * _slope(t, crop.rise, crop.rise_days)) * (
        1 - ripe
    ) - green * _slope(t, crop.fall, crop.fall_days)
    dry = 0.85 * green * ripe
    green = green * (1 - ripe)
    # after harvest: stubble with volunteers, or bare tilled soil, or a catch crop sown after tillage
    after = since - harvest
    stubble = since < plough
    volunteers = 0.04 + 0.22 * lag * np.clip(after / 40, 0, 1)
    catch = uniform(mixed(parcels, 108, year)) < 0.65
    sown = np.where(catch & (plough < 255), 0.65 * _rise(since - plough, 30, 6), 0.03)
    sown = np.where(since < end, sown, 0.05)
    green = np.where(standing, green, np.where(stubble, volunteers, sown))
    growth = np.where(standing, growth, 0.0)
    dry = np.where(standing, dry, np.where(stubble, crop.straw * np.exp(-np.clip(after, 0, 200) / 90), 0.04))
    fresh = np.exp(-np.clip(since - plough, 0, 400) / 45)
    tilled = np.where(standing, 0.0, np.where(stubble, 0.0, fresh))
    # in the autumn before, only a winter crop is there, once sown
    present = (since > np.maximum(start, free)) if since < 0 else np.ones(len(parcels), bool)
    if since < 0 and not crop.autumn:
        present = np.zeros(len(parcels), bool)
    return _Stage(present, green, growth, dry, tilled, harvest + 4)


def _mown(parcels: U32, since: float, year: int) -> F64:
    cut = np.zeros(len(parcels))
    intensity = uniform(mixed(parcels, 109))
    for number, (usual, needs) in enumerate(((138, 0.15), (188, 0.35), (240, 0.5), (282, 0.8))):
        day = np.round(usual + 9 * normal(mixed(parcels, 110 + number, year)).astype(np.float64))
        after = since - day
        done = (after >= 0) & (intensity > needs)
        cut = np.maximum(cut, np.where(done, 0.68 * np.exp(-np.clip(after, 0, 300) / 17), 0.0))
    return cut


def leaves(day: date, style: Style) -> tuple[float, float]:
    """Share of a broadleaf crown in leaf on `day`, 0..1, and its change a day."""
    t = day.timetuple().tm_yday - style.season_shift
    on, off = (t - 122) / 5.0, (t - 292) / 8.0
    value = 1 / (1 + math.exp(-on)) - 1 / (1 + math.exp(-off))
    steep = [math.exp(-abs(p)) / (1 + math.exp(-abs(p))) ** 2 for p in (on, off)]
    slope = steep[0] / 5 - steep[1] / 8
    return round(max(value, 0.0), 6), round(slope, 6)


def greenness_of_grass(day: date, style: Style) -> float:
    """Share of grass that is green on `day` on verges and in gardens, 0..1."""
    t = day.timetuple().tm_yday - style.season_shift
    rise, fall = 1 / (1 + math.exp(-(t - 85) / 14)), 1 / (1 + math.exp(-(t - 310) / 16))
    summer = math.exp(-(((t - 225) / 35) ** 2))
    return round(0.42 + 0.48 * (rise - fall) - 0.22 * summer, 6)


def moisture(seed: int, day: date) -> float:
    """Wetness of bare soil on `day`, 0 dry .. 1 soaked: showers that dry out over days, slower in winter."""
    wet = 0.0
    ordinal = day.toordinal()
    angle = 2 * math.pi * (day.timetuple().tm_yday - 200) / 365.25
    days = 4.5 - 2.5 * math.cos(angle)
    for back in range(20):
        h = mixed(key(seed, "rain"), ordinal - back)
        if float(uniform(h)) < 0.28:
            wet += float(uniform(mixed(h, 1))) * math.exp(-back / days)
    return round(min(wet, 1.0), 6)


def snow_cover(seed: int, day: date, style: Style) -> float:
    """Share of ground under snow on `day`, 0..1; only in the cold half of the year and where the style has any."""
    t = day.timetuple().tm_yday
    if not style.snow or 70 < t < 335:
        return 0.0
    week = day.toordinal() // 7
    h = mixed(key(seed, "snow"), week)
    return round(0.5 + 0.5 * float(uniform(mixed(h, 1))), 6) if float(uniform(h)) < style.snow else 0.0


def _rise(t: F64, middle: float, days: float) -> F64:
    return np.asarray(1 / (1 + np.exp(-np.clip((t - middle) / days, -40, 40))))


def _slope(t: F64, middle: float, days: float) -> F64:
    s = _rise(t, middle, days)
    return np.asarray(s * (1 - s) / days)


def _year_days(year: int) -> int:
    return (date(year + 1, 1, 1) - date(year, 1, 1)).days


def _settled(values: F64) -> F32:
    # libm may differ in the last bit between machines; what is rounded to 2**-20 does not
    return np.round(values * 2.0**20).astype(np.float32) * np.float32(2.0**-20)
